-- Links with which the owner of a phone links it to a device: the last one of each device. A link works until it has ended, was used,
-- or the browser that opened it left its page; no other browser can open it.

CREATE TABLE shardd.pairing_links (
    device_id  text PRIMARY KEY REFERENCES shardd.devices (id) ON DELETE CASCADE,
    hash       bytea NOT NULL UNIQUE,      -- SHA-256 of its secret
    new_number boolean NOT NULL,           -- the device may get another number than it had
    made_by    text NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT now(),
    ends_at    timestamptz NOT NULL,
    browser    bytea UNIQUE,               -- SHA-256 of the cookie of the browser that opened it
    seen_at    timestamptz,                -- when this browser last had the page open
    tries      integer NOT NULL DEFAULT 0,
    outcome    text,                       -- of the last try: paired, or why not (shardd.errors.PairingFailure)
    outcome_at timestamptz,
    remark     text                        -- what is left to do after a pairing
);
