-- When each device was last online.

-- Beside shardd.devices, whose changes notify every supervisor: devices are online thousands of times a day.
CREATE TABLE shardd.device_visits (
    device_id       text PRIMARY KEY REFERENCES shardd.devices (id),
    online_at       timestamptz,           -- for a send or a visit
    presence_at     timestamptz,           -- when it last showed its presence
    visit_failed_at timestamptz,           -- NULL: it was online since
    visit_note      text                   -- why the last visit failed, or why it showed no presence
) WITH (fillfactor = 70);
