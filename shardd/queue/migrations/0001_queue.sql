-- The queue. Live jobs stand in a small table that is updated in place (HOT: a claim touches no indexed column);
-- finished ones move to an archive partitioned by month. Producers insert into shardd.jobs and read shardd.outcomes.

CREATE TABLE shardd.devices (
    id           text PRIMARY KEY,
    transport    text NOT NULL,
    label        text,
    session      text,                     -- key of the stored WhatsApp session: 628…:1@s.whatsapp.net
    proxy        text,                     -- upstream proxy of this device's connections
    settings     jsonb NOT NULL DEFAULT '{}',
    state        text NOT NULL DEFAULT 'ready',
    reason       text,
    state_since  timestamptz NOT NULL DEFAULT now(),
    state_until  timestamptz,              -- when the state ends by itself
    paused_at    timestamptz,
    paused_why   text,
    gap_min      double precision,         -- seconds; NULL: the config's
    gap_max      double precision,
    daily_limit  integer,                  -- messages a day; 0: none; NULL: the config's
    created_at   timestamptz NOT NULL DEFAULT now(),
    removed_at   timestamptz,
    CONSTRAINT device_id_is_a_short_name CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}$'),
    CONSTRAINT transport_is_known CHECK (transport IN ('sandbox', 'whatsapp')),
    CONSTRAINT device_state_is_known CHECK (state IN
        ('ready', 'unpaired', 'logged_out', 'replaced', 'banned', 'restricted', 'client_outdated')),
    CONSTRAINT gap_is_a_range CHECK (gap_min >= 0 AND gap_max >= gap_min),
    CONSTRAINT daily_limit_is_not_negative CHECK (daily_limit >= 0)
);

-- One session has one device: two devices on one session would replace each other for ever.
CREATE UNIQUE INDEX devices_session ON shardd.devices (session) WHERE session IS NOT NULL AND removed_at IS NULL;

-- What a device sent on a day, for the daily limit, and when last, so that a restart does not forget the gap.
CREATE TABLE shardd.device_days (
    device_id text NOT NULL REFERENCES shardd.devices (id),
    day       date NOT NULL,
    sent      integer NOT NULL DEFAULT 0,
    last_at   timestamptz NOT NULL,
    PRIMARY KEY (device_id, day)
) WITH (fillfactor = 70);

CREATE TABLE shardd.nodes (
    name        text PRIMARY KEY,
    incarnation uuid NOT NULL,             -- new at every start of a supervisor
    shards      integer NOT NULL,          -- every live node must agree, or a device would have two owners
    version     text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now()
);

-- Every time that a node took a shard. An epoch is never used twice.
CREATE TABLE shardd.epochs (
    epoch       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard       integer NOT NULL,
    node        text NOT NULL,
    incarnation uuid NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shardd.leases (
    shard      integer PRIMARY KEY CHECK (shard >= 0),
    epoch      bigint NOT NULL UNIQUE REFERENCES shardd.epochs (epoch),
    node       text NOT NULL,
    expires_at timestamptz NOT NULL        -- by this database's clock
) WITH (fillfactor = 50);

CREATE TABLE shardd.jobs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id     text NOT NULL,
    recipient     text NOT NULL,
    kind          text NOT NULL DEFAULT 'text',
    body          text NOT NULL DEFAULT '',
    media         text,                    -- http(s) URL, data: URI, or a path below the configured folder
    file_name     text,
    mime_type     text,
    details       jsonb,                   -- location: latitude, longitude, name, address; contact: name, phone
    priority      smallint NOT NULL DEFAULT 0,   -- -100 … 100, the higher the sooner
    run_at        timestamptz NOT NULL DEFAULT now(),
    max_attempts  smallint NOT NULL DEFAULT 5,
    on_doubt      text NOT NULL DEFAULT 'hold',
    dedupe_key    text,
    reference     text,                    -- the producer's own key
    created_at    timestamptz NOT NULL DEFAULT now(),
    scheduled     boolean NOT NULL DEFAULT false,  -- waits for due_at
    due_at        timestamptz,
    attempt       integer NOT NULL DEFAULT 0,      -- counts claims: with claimed_epoch it names one claim
    failures      smallint NOT NULL DEFAULT 0,     -- attempts used up
    claimed_epoch bigint,                  -- no index may name this or the next column: a claim stays HOT
    claimed_at    timestamptz,
    error         text,                    -- of the last attempt
    -- Place in the device's line: run_at in microseconds, moved ahead by priority. Not the primary key, so that the
    -- planner cannot answer "the next of this device" with a scan of the whole table in id order.
    ord           bigint NOT NULL GENERATED ALWAYS AS (
        (extract(epoch FROM run_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint - (priority::bigint << 52)
    ) STORED
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);

CREATE INDEX jobs_line ON shardd.jobs (device_id, ord, id) WHERE NOT scheduled;
CREATE INDEX jobs_due ON shardd.jobs (due_at) WHERE scheduled;

CREATE TABLE shardd.dedupe_keys (
    key        text PRIMARY KEY,
    job_id     bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE shardd.archive (
    id            bigint NOT NULL,
    device_id     text NOT NULL,
    recipient     text NOT NULL,
    kind          text NOT NULL,
    body          text NOT NULL,
    media         text,
    file_name     text,
    mime_type     text,
    details       jsonb,
    priority      smallint NOT NULL,
    run_at        timestamptz NOT NULL,
    max_attempts  smallint NOT NULL,
    on_doubt      text NOT NULL,
    dedupe_key    text,
    reference     text,
    created_at    timestamptz NOT NULL,
    attempt       integer NOT NULL,
    failures      smallint NOT NULL,
    claimed_epoch bigint,
    claimed_at    timestamptz,
    state         text NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT now(),
    message_id    text,
    error         text,
    delivered_at  timestamptz,
    read_at       timestamptz,
    CONSTRAINT archived_state_is_final CHECK (state IN ('sent', 'failed', 'cancelled', 'in_doubt'))
) PARTITION BY RANGE (settled_at);

CREATE INDEX archive_id ON shardd.archive (id);
CREATE INDEX archive_message ON shardd.archive (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX archive_doubt ON shardd.archive (id) WHERE state = 'in_doubt';
CREATE INDEX archive_reference ON shardd.archive (reference) WHERE reference IS NOT NULL;
CREATE INDEX jobs_reference ON shardd.jobs (reference) WHERE reference IS NOT NULL;

-- Makes the partitions of this month and the two that follow. Called at every start and daily: a month that nobody
-- prepared falls into no partition and would stop every settle, so the default partition catches it.
CREATE FUNCTION shardd.prepare_archive() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    month date;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('shardd.prepare_archive', 0));
    FOR i IN 0 .. 2 LOOP
        month := first + make_interval(months => i);
        BEGIN
            EXECUTE format(
                'CREATE TABLE IF NOT EXISTS shardd.%I PARTITION OF shardd.archive FOR VALUES FROM (%L) TO (%L)',
                'archive_' || to_char(month, 'YYYY_MM'),
                month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
        EXCEPTION WHEN check_violation THEN
            -- The default partition has rows of this month already, from a time without a supervisor: it keeps the month.
            NULL;
        END;
    END LOOP;
END $$;

CREATE TABLE shardd.archive_other PARTITION OF shardd.archive DEFAULT;
SELECT shardd.prepare_archive();

-- The gate of the queue: a bad row is refused here, at INSERT, in words for whoever wrote the INSERT. It runs with its owner's
-- rights, because a producer may not read devices.
CREATE FUNCTION shardd.admit_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    digits   integer;
    gone     timestamptz;
    too_long text;
BEGIN
    SELECT d.removed_at INTO gone FROM shardd.devices d WHERE d.id = NEW.device_id;
    IF NOT FOUND OR gone IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'device_id',
            MESSAGE = format('device_id %L is %s', NEW.device_id, CASE WHEN gone IS NULL THEN 'unknown' ELSE 'removed' END),
            HINT = 'List the devices with: shardd device list. Add one with: shardd device add.';
    END IF;

    IF NEW.recipient !~ '^\+?[0-9]{6,15}$' AND NEW.recipient !~ '^[0-9]{5,20}@(s\.whatsapp\.net|lid)$'
        AND NEW.recipient !~ '^[0-9]{5,25}(-[0-9]{5,15})?@g\.us$' THEN
        digits := length(regexp_replace(NEW.recipient, '[^0-9]', '', 'g'));
        IF NEW.recipient !~ '^[+(]?[0-9][0-9 ()./-]{0,39}$' OR digits < 6 OR digits > 15 THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'recipient',
                MESSAGE = format('recipient %L is neither a phone number nor a WhatsApp address', left(NEW.recipient, 80)),
                HINT = 'Write a phone number with its country code, such as +4915112345678, or an address that ends with '
                       '@s.whatsapp.net, @lid or @g.us.';
        END IF;
    END IF;

    IF NEW.kind = 'text' THEN
        IF NEW.body !~ '\S' THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'body',
                MESSAGE = 'body is empty', HINT = 'A text message needs a body.';
        END IF;
        IF NEW.media IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'kind',
                MESSAGE = 'kind is ''text'', but media is given',
                HINT = 'Name the kind of the media: image, video, audio, voice or document.';
        END IF;
    ELSIF NEW.kind IN ('image', 'video', 'audio', 'voice', 'document') THEN
        IF NEW.media IS NULL OR NEW.media !~ '\S' THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'media',
                MESSAGE = format('media is empty, but kind is %L', NEW.kind),
                HINT = 'Give an http(s) URL, a data: URI, or a file below the configured media folder.';
        END IF;
    ELSIF NEW.kind = 'location' THEN
        IF jsonb_typeof(NEW.details -> 'latitude') IS DISTINCT FROM 'number'
            OR jsonb_typeof(NEW.details -> 'longitude') IS DISTINCT FROM 'number' THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'details',
                MESSAGE = 'details lack the numbers latitude and longitude',
                HINT = 'Such as {"latitude": 52.52, "longitude": 13.40, "name": "Berlin"}.';
        END IF;
        IF abs((NEW.details ->> 'latitude')::numeric) > 90 OR abs((NEW.details ->> 'longitude')::numeric) > 180 THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'details',
                MESSAGE = format('latitude %s, longitude %s is no place', left(NEW.details ->> 'latitude', 20),
                                 left(NEW.details ->> 'longitude', 20)),
                HINT = 'Degrees: latitude from -90 to 90, longitude from -180 to 180.';
        END IF;
    ELSIF NEW.kind = 'contact' THEN
        IF coalesce(NEW.details ->> 'name', '') !~ '\S' OR coalesce(NEW.details ->> 'phone', '') !~ '[0-9]{3}' THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'details',
                MESSAGE = 'details lack the name and the phone of the contact',
                HINT = 'Such as {"name": "Ada", "phone": "+4915112345678"}.';
        END IF;
    ELSE
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'kind',
            MESSAGE = format('kind %L is unknown', NEW.kind),
            HINT = 'One of: text, image, video, audio, voice, document, location, contact.';
    END IF;

    IF length(NEW.body) > 65536 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'body',
            MESSAGE = format('body has %s characters', length(NEW.body)),
            HINT = 'At most 65536 characters fit in one message: split it, or send a document.';
    END IF;
    too_long := CASE
        WHEN length(NEW.reference) > 200 THEN 'reference'
        WHEN length(NEW.dedupe_key) > 200 THEN 'dedupe_key'
        WHEN length(NEW.file_name) > 255 THEN 'file_name'
        WHEN length(NEW.mime_type) > 255 THEN 'mime_type'
        WHEN octet_length(NEW.media) > 1048576 THEN 'media'
        WHEN octet_length(NEW.details::text) > 8192 THEN 'details' END;
    IF too_long IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = too_long,
            MESSAGE = format('%s is too long', too_long),
            HINT = 'At most 200 characters in reference and dedupe_key, 255 in file_name and mime_type, 8192 bytes in details, '
                   'and 1 MiB in media: a larger file goes by its URL or path.';
    END IF;
    IF NEW.dedupe_key = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'dedupe_key',
            MESSAGE = 'dedupe_key is empty',
            HINT = 'All jobs with the same key are one job: leave it out (NULL) for a job that stands for itself.';
    END IF;
    IF NEW.priority NOT BETWEEN -100 AND 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'priority',
            MESSAGE = format('priority is %s', NEW.priority), HINT = 'Between -100 and 100; the higher the sooner.';
    END IF;
    IF NEW.max_attempts NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'max_attempts',
            MESSAGE = format('max_attempts is %s', NEW.max_attempts), HINT = 'Between 1 and 100.';
    END IF;
    IF NEW.on_doubt NOT IN ('hold', 'retry') THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'on_doubt',
            MESSAGE = format('on_doubt is %L', NEW.on_doubt),
            HINT = 'hold: wait for a person when nobody can know whether it was sent; retry: send again.';
    END IF;
    -- ord keeps run_at in 52 bits of microseconds beside the priority.
    IF NEW.run_at NOT BETWEEN '1971-01-01 00:00:00+00' AND '2100-01-01 00:00:00+00' THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'jobs', COLUMN = 'run_at',
            MESSAGE = format('run_at is %s', NEW.run_at), HINT = 'A time between the years 1971 and 2100.';
    END IF;

    NEW.scheduled := NEW.run_at > now();
    NEW.due_at := CASE WHEN NEW.scheduled THEN NEW.run_at END;

    -- A key that was used before makes the INSERT do nothing: the producer may repeat itself safely. A job that an operator
    -- sends again comes back under its own id.
    IF NEW.dedupe_key IS NOT NULL THEN
        INSERT INTO shardd.dedupe_keys AS k (key, job_id) VALUES (NEW.dedupe_key, NEW.id)
            ON CONFLICT (key) DO UPDATE SET job_id = EXCLUDED.job_id WHERE k.job_id = EXCLUDED.job_id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER admit_job BEFORE INSERT ON shardd.jobs FOR EACH ROW EXECUTE FUNCTION shardd.admit_job();

-- A wake-up for the router. NOTIFY serialises the commits of all writers, so only one of them at a time notifies; a lost one is
-- made good by the router's poll. A statement that inserted one job says where it stands, which spares the router a question.
CREATE FUNCTION shardd.wake_router() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF pg_try_advisory_xact_lock(hashtext('shardd.wake_router')) THEN
        PERFORM pg_notify('shardd_jobs', CASE WHEN count(*) = 1 THEN min(place) ELSE '' END)
           FROM (SELECT json_build_array(device_id, ord, id)::text AS place FROM added WHERE NOT scheduled LIMIT 2) one;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER wake_router AFTER INSERT ON shardd.jobs REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.wake_router();

CREATE FUNCTION shardd.announce_devices() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('shardd_devices', '');
    RETURN NULL;
END $$;

-- For each row, because a statement that changes none must announce nothing: the router answers an announcement with an UPDATE
-- that seldom finds anything. A transaction's equal notifications become one.
CREATE TRIGGER announce_devices AFTER INSERT OR UPDATE OR DELETE ON shardd.devices
    FOR EACH ROW EXECUTE FUNCTION shardd.announce_devices();

-- What a producer reads: every job, live or finished, and what it waits for.
CREATE VIEW shardd.outcomes AS
    SELECT j.id, j.reference, j.device_id, j.recipient, j.kind,
           CASE WHEN j.claimed_epoch IS NOT NULL THEN 'sending' WHEN j.scheduled THEN 'scheduled' ELSE 'queued' END AS state,
           CASE WHEN j.claimed_epoch IS NOT NULL THEN NULL
                WHEN j.scheduled AND j.failures > 0 THEN 'the end of a backoff'
                WHEN j.scheduled AND j.error IS NOT NULL THEN j.error
                WHEN j.scheduled THEN 'its time'
                WHEN d.removed_at IS NOT NULL THEN 'nothing: its device was removed'
                WHEN d.paused_at IS NOT NULL THEN 'its device: paused' || coalesce(', ' || d.paused_why, '')
                WHEN d.state NOT IN ('ready', 'restricted') THEN 'its device: ' || d.state || coalesce(', ' || d.reason, '')
                ELSE 'its turn' END AS waits_for,
           j.attempt, j.failures, j.max_attempts, j.priority, j.run_at, j.due_at, j.created_at,
           NULL::timestamptz AS settled_at, NULL::text AS message_id, j.error,
           NULL::timestamptz AS delivered_at, NULL::timestamptz AS read_at
      FROM shardd.jobs j LEFT JOIN shardd.devices d ON d.id = j.device_id
    UNION ALL
    SELECT a.id, a.reference, a.device_id, a.recipient, a.kind, a.state,
           CASE a.state WHEN 'in_doubt' THEN 'a person: shardd job retry, or leave it' END,
           a.attempt, a.failures, a.max_attempts, a.priority, a.run_at, NULL, a.created_at,
           a.settled_at, a.message_id, a.error, a.delivered_at, a.read_at
      FROM shardd.archive a;
