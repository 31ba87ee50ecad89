-- Devices and their groups, what each has sent, and which node owns which shard of them.

-- Whether a text is a setting for quiet hours: 21:00-08:00, or none.
CREATE FUNCTION shardd.are_hours(hours text) RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN hours = 'none' OR (hours ~ '^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$'
                              AND left(hours, 5) <> right(hours, 5));

-- The transports, and the states of devices with those that they may change to; definitions.sql fills them.
CREATE TABLE shardd.transports (
    name         text PRIMARY KEY,
    kinds        text[] NOT NULL DEFAULT '{}',   -- of jobs that its devices send; empty: not known
    link_preview boolean NOT NULL DEFAULT true   -- whether a job can choose that a text shows one
);

CREATE TABLE shardd.device_states (
    name text PRIMARY KEY,
    next text[] NOT NULL
);

CREATE TABLE shardd.devices (
    id           text PRIMARY KEY,
    transport    text NOT NULL CONSTRAINT transport_is_known REFERENCES shardd.transports (name),
    label        text,
    session      text,                     -- key of the stored WhatsApp session: 628…:1@s.whatsapp.net
    proxy        text,                     -- upstream proxy of this device's connections
    settings     jsonb NOT NULL DEFAULT '{}',
    state        text NOT NULL DEFAULT 'ready' CONSTRAINT device_state_is_known REFERENCES shardd.device_states (name),
    reason       text,
    state_since  timestamptz NOT NULL DEFAULT now(),
    state_until  timestamptz,              -- when the state ends by itself
    backoff_until  timestamptz,            -- it does not send until then, because its platform reported an error of the account
    backoff_reason text,
    paused_at    timestamptz,
    paused_why   text,
    resumed_at   timestamptz,              -- when the last pause ended
    gap_min      double precision,         -- seconds; NULL here and below: the config's
    gap_max      double precision,
    hourly_limit integer,                  -- messages an hour of the device's clock; 0: none
    daily_limit  integer,                  -- messages a day of the device's calendar; 0: none, and no warm-up
    quiet_hours  text,                     -- 21:00-08:00 by the device's clock, or none
    timezone     text,
    warm         boolean NOT NULL DEFAULT false,  -- it has long sent elsewhere: no warm-up
    classes      jsonb NOT NULL DEFAULT '{}',     -- settings of classes: {"reply": {"gap_min": 1, "gap_max": 3}}
    created_at   timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz,
    CONSTRAINT device_id_is_a_short_name CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}$'),
    CONSTRAINT gap_is_a_range CHECK (coalesce(gap_min, 0) BETWEEN 0 AND 86400
                                     AND coalesce(gap_max, gap_min, 0) BETWEEN coalesce(gap_min, 0) AND 86400),
    CONSTRAINT hourly_limit_is_not_negative CHECK (hourly_limit >= 0),
    CONSTRAINT daily_limit_is_not_negative CHECK (daily_limit >= 0),
    CONSTRAINT quiet_hours_are_two_times CHECK (shardd.are_hours(quiet_hours))
);

-- One device per number: two devices with sessions of one number would share one account's limits, and on one session they would keep
-- replacing each other.
CREATE UNIQUE INDEX devices_number ON shardd.devices (split_part(split_part(session, '@', 1), ':', 1))
    WHERE session IS NOT NULL AND removed_at IS NULL;

-- Pairings in progress, each held by a live connection until it expires. Rows, because any login can take an advisory lock.
CREATE TABLE shardd.pairings (
    device_id     text PRIMARY KEY,
    pid           integer NOT NULL,        -- of the backend, with its start in pg_stat_activity
    backend_start timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL     -- a pooler may keep the backend for other clients
);

-- Devices that share jobs: a job that names a group is given to one of them.
CREATE TABLE shardd.device_groups (
    id         text PRIMARY KEY,
    label      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT group_id_is_a_short_name CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}$')
);

CREATE TABLE shardd.device_group_members (
    device_group text NOT NULL REFERENCES shardd.device_groups (id) ON DELETE CASCADE,
    device_id    text NOT NULL REFERENCES shardd.devices (id),
    PRIMARY KEY (device_group, device_id)
);

-- Messages of a device on a day of its own calendar, and in the last hour of it in which it sent, for its limits; and the time of the
-- last one, so that a restart does not forget the gap. The number of days is the progress of its warm-up.
CREATE TABLE shardd.device_days (
    device_id text NOT NULL REFERENCES shardd.devices (id),
    day       date NOT NULL,
    sent      integer NOT NULL DEFAULT 0,
    hour      smallint NOT NULL DEFAULT 0,
    hour_sent integer NOT NULL DEFAULT 0,
    last_at   timestamptz NOT NULL,
    PRIMARY KEY (device_id, day)
) WITH (fillfactor = 70);

-- A node is its state folder, whatever its name is and wherever the folder lies.
CREATE TABLE shardd.nodes (
    id          text PRIMARY KEY,          -- of the state folder
    name        text NOT NULL,             -- from the config, for people
    incarnation uuid NOT NULL,             -- new at every start of a supervisor
    shards      integer NOT NULL,          -- every live node must agree, or a device would have two owners
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(),
    pid         integer,                   -- of its supervisor, on its own host
    away_since  timestamptz,               -- alive, but serving nothing since then, because its state folder is gone; NULL: serving
    leaving_at  timestamptz,               -- it stops: it takes no shards any more, and gives back those that it has, one by one
    cordoned_at timestamptz,               -- an operator wants it to hold no shards, also after a restart (shardd cluster); NULL: it may
    ttl         double precision NOT NULL, -- seconds, of its leases; it is alive if it was seen within them
    margin      double precision,          -- seconds, likewise; NULL: unknown
    summary     jsonb,                     -- what it last said about itself, for the status of the others: less than 2 kB
    host        text NOT NULL DEFAULT '',  -- where it runs, in words: not an identity, because copies of a machine share its name
    state_dir   text NOT NULL DEFAULT '',
    place       text,                      -- the lock of its state folder, in one run of a kernel; NULL: unknown. Who holds that lock now
                                           -- knows that the incarnation is dead
    rival       text,                      -- another supervisor that was refused because of this one, and when
    rival_at    timestamptz,
    beats       bigint NOT NULL DEFAULT 0, -- how often it was renewed, by all its incarnations
    beat        uuid,                      -- drawn anew for each renewal: who does not know it is a copy of who drew it
    beat_at     timestamptz,
    earlier_beats uuid[] NOT NULL DEFAULT '{}',  -- the last ones of earlier incarnations: their state folder is not older than that
    address     text,                      -- from where it was renewed; NULL: through a socket
    timeline    bigint                     -- of the server, on which it has settled again all that it sent; NULL: on none yet
);

-- The database begins a new life when it is made, and each time that a person has said what was sent since the backup that it was restored
-- from. State folders remember the last life: in a database of that life they must find what they remember of it.
CREATE TABLE shardd.lives (
    began_at   timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
    how        text NOT NULL,
    doubt      text,                       -- why this database seems to be older than a state folder; nothing is claimed until a new life
    doubted_at timestamptz
);
INSERT INTO shardd.lives (how) VALUES ('made');

-- One row for each time that a node took a shard. An epoch is never reused.
CREATE TABLE shardd.epochs (
    epoch       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard       integer NOT NULL,
    node        text NOT NULL,             -- its name at that time
    incarnation uuid NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    drained_at  timestamptz                -- nothing was in flight any more: a claim that appears later never reached a worker
);

CREATE TABLE shardd.leases (
    shard      integer PRIMARY KEY CHECK (shard >= 0),
    epoch      bigint NOT NULL UNIQUE REFERENCES shardd.epochs (epoch),
    node_id    text NOT NULL,
    expires_at timestamptz NOT NULL        -- by this database's clock
) WITH (fillfactor = 50);

-- Notifies whoever listens to a channel. Notifications are hints, because listeners poll anyway, so none may cause an error: any login
-- can fill PostgreSQL's notification queue (with LISTEN in a transaction that it never ends), and when it is full, every transaction
-- that notifies fails. So none is added to a queue that is half full.
CREATE FUNCTION shardd.announce(channel text, payload text DEFAULT '') RETURNS void LANGUAGE sql
    RETURN CASE WHEN pg_notification_queue_usage() < 0.5 THEN pg_notify(channel, payload) END;

CREATE FUNCTION shardd.announce_devices() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM shardd.announce('shardd_devices');
    RETURN NULL;
END $$;

-- For each row, because a statement that changes nothing must not notify: the router answers a notification with an UPDATE that rarely
-- finds anything. PostgreSQL merges a transaction's equal notifications.
CREATE TRIGGER announce_devices AFTER INSERT OR UPDATE OR DELETE ON shardd.devices
    FOR EACH ROW EXECUTE FUNCTION shardd.announce_devices();

CREATE TRIGGER announce_members AFTER INSERT OR UPDATE OR DELETE ON shardd.device_group_members
    FOR EACH ROW EXECUTE FUNCTION shardd.announce_devices();

CREATE FUNCTION shardd.announce_leases() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM shardd.announce('shardd_leases');
    RETURN NULL;
END $$;

-- A shard is free: another node need not wait until it looks again.
CREATE TRIGGER announce_leases AFTER DELETE ON shardd.leases
    FOR EACH ROW EXECUTE FUNCTION shardd.announce_leases();

-- Checks a device's settings for classes of jobs.
CREATE FUNCTION shardd.check_classes(classes jsonb) RETURNS boolean LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    class  text;
    fields jsonb;
    name   text;
    value  jsonb;
    number numeric;
    most   numeric;
BEGIN
    FOR class, fields IN SELECT * FROM jsonb_each(classes) LOOP
        IF class NOT IN ('marketing', 'service', 'reply') OR jsonb_typeof(fields) <> 'object' THEN
            RETURN shardd.refuse('classes', format('classes has %L: %s', left(class, 80), left(fields::text, 80)),
                'Example: {"reply": {"gap_min": 1, "gap_max": 3}}. The classes are marketing, service and reply.', 'devices');
        END IF;
        FOR name, value IN SELECT * FROM jsonb_each(fields) LOOP
            CONTINUE WHEN value = 'null';
            number := CASE WHEN jsonb_typeof(value) = 'number' THEN value::numeric END;
            most := CASE WHEN name IN ('gap_min', 'gap_max') THEN 86400
                         WHEN name IN ('hourly_limit', 'daily_limit') THEN 1000000 WHEN name = 'burst' THEN 1000 END;
            CONTINUE WHEN number BETWEEN 0 AND most AND (name IN ('gap_min', 'gap_max') OR number = trunc(number));
            CONTINUE WHEN name = 'quiet_hours' AND jsonb_typeof(value) = 'string' AND shardd.are_hours(value #>> '{}');
            RETURN shardd.refuse('classes',
                format('classes has %L: %s for %s', left(name, 80), left(value::text, 80), class),
                'Allowed: gap_min and gap_max in seconds up to 86400, hourly_limit and daily_limit up to 1000000, burst up to '
                '1000, and quiet_hours such as "21:00-08:00" or "none".', 'devices');
        END LOOP;
        IF (fields ->> 'gap_min')::numeric > (fields ->> 'gap_max')::numeric THEN
            RETURN shardd.refuse('classes', format('classes has a gap_min above its gap_max for %s', class),
                'The pause is random between the two.', 'devices');
        END IF;
    END LOOP;
    RETURN true;
END $$;

-- Refuses what would later keep the device from sending.
CREATE FUNCTION shardd.check_device() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fine boolean;
BEGIN
    -- The view reads a thousand files: only look up a name that no device has yet.
    IF NEW.timezone IS NOT NULL AND NOT EXISTS (SELECT FROM shardd.devices d WHERE d.timezone = NEW.timezone)
        AND NOT EXISTS (SELECT FROM pg_timezone_names z WHERE z.name = NEW.timezone) THEN
        fine := shardd.refuse('timezone', format('timezone %L is unknown', left(NEW.timezone, 80)),
            'Write a name of the tz database, such as Asia/Jakarta.', 'devices');
    ELSIF octet_length(NEW.label) > 800 OR length(NEW.label) > 200 THEN
        fine := shardd.refuse('label', format('label has %s characters', length(NEW.label)), 'At most 200.', 'devices');
    END IF;
    fine := shardd.check_json('settings', NEW.settings, 8192, 'devices');
    fine := shardd.check_json('classes', NEW.classes, 8192, 'devices');
    fine := shardd.check_classes(NEW.classes);
    RETURN NEW;
END $$;

CREATE TRIGGER check_device BEFORE INSERT OR UPDATE OF label, timezone, settings, classes ON shardd.devices
    FOR EACH ROW WHEN (NEW.label IS NOT NULL OR NEW.timezone IS NOT NULL OR NEW.settings <> '{}' OR NEW.classes <> '{}')
    EXECUTE FUNCTION shardd.check_device();

-- Refuses a change of state that shardd.device_states does not allow. A removed device that comes back begins in any state.
CREATE FUNCTION shardd.check_device_state() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    allowed text[] := (SELECT s.next FROM shardd.device_states s WHERE s.name = OLD.state);
    fine    boolean;
BEGIN
    IF NEW.state <> ALL (allowed) THEN
        fine := shardd.refuse('state', format('device %L is %s and cannot become %s', NEW.id, OLD.state, left(NEW.state, 80)),
            format('From %s, it can become one of: %s.', OLD.state, array_to_string(allowed, ', ')), 'devices');
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_device_state BEFORE UPDATE OF state ON shardd.devices
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND OLD.removed_at IS NULL)
    EXECUTE FUNCTION shardd.check_device_state();
