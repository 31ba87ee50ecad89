-- The queue. Live jobs stand in a small table that is updated in place (HOT: a claim touches no indexed column);
-- finished ones move to an archive partitioned by month. Producers insert into shardd.jobs and read shardd.outcomes.

-- What is told to every node at once, and to the triggers.
CREATE TABLE shardd.settings (
    name  text PRIMARY KEY,
    value jsonb NOT NULL
);

-- Jobs that are paused, resumed, cancelled and counted together, and that share a device fairly with other campaigns.
CREATE TABLE shardd.campaigns (
    id         text PRIMARY KEY,
    label      text,
    state      text NOT NULL DEFAULT 'running',
    why        text,                       -- why it is in this state
    state_since timestamptz NOT NULL DEFAULT now(),
    weight     double precision NOT NULL DEFAULT 1,  -- of two campaigns on one device, 2 sends twice as much as 1
    device_cap integer,                    -- its messages per device and day; NULL: none
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT campaign_id_is_a_short_name CHECK (id ~ '^[A-Za-z0-9][A-Za-z0-9._:+@-]{0,63}$'),
    CONSTRAINT campaign_state_is_known CHECK (state IN ('running', 'paused', 'cancelled')),
    CONSTRAINT weight_is_positive CHECK (weight > 0 AND weight <= 1000),
    CONSTRAINT device_cap_is_positive CHECK (device_cap > 0)
);

-- What a campaign sent through a device on a day of the device's calendar, for device_cap.
CREATE TABLE shardd.campaign_days (
    campaign  text NOT NULL REFERENCES shardd.campaigns (id),
    device_id text NOT NULL REFERENCES shardd.devices (id),
    day       date NOT NULL,
    sent      integer NOT NULL,
    PRIMARY KEY (campaign, device_id, day)
) WITH (fillfactor = 70);

CREATE FUNCTION shardd.announce_campaigns() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM shardd.announce('shardd_campaigns');
    RETURN NULL;
END $$;

CREATE TRIGGER announce_campaigns AFTER INSERT OR UPDATE OR DELETE ON shardd.campaigns
    FOR EACH ROW EXECUTE FUNCTION shardd.announce_campaigns();

-- Who wants no more messages. Final: 0007_opt_outs sees to it, and to what may stand here.
CREATE TABLE shardd.opt_outs (
    address    text PRIMARY KEY,           -- as shardd.address_of writes it
    recipient  text NOT NULL,              -- as it was given
    source     text NOT NULL DEFAULT 'producer',
    device_id  text,                       -- that heard it
    words      text,                       -- what the recipient wrote
    note       text,
    said_at    timestamptz,                -- when the recipient said so, where that is known
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT opt_out_source_is_known CHECK (source IN ('producer', 'message', 'operator', 'import'))
);

-- Which device of a group a recipient knows.
CREATE TABLE shardd.contacts (
    device_group text NOT NULL REFERENCES shardd.device_groups (id) ON DELETE CASCADE,
    address      text NOT NULL,
    device_id    text NOT NULL,
    last_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_group, address)
) WITH (fillfactor = 80);

CREATE TABLE shardd.jobs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id     text,                    -- or device_group, whose job gets its device when one is free
    device_group  text,
    recipient     text NOT NULL,
    kind          text NOT NULL DEFAULT 'text',
    body          text NOT NULL DEFAULT '',
    variables     jsonb,                   -- given: the body is a template, {name} or {name|default}
    media         text,                    -- http(s) URL, data: URI, or a path below the configured folder
    file_name     text,
    mime_type     text,
    details       jsonb,                   -- location: latitude, longitude, name, address; contact: name, phone; template
    class         text NOT NULL DEFAULT 'marketing',
    campaign      text,
    priority      smallint NOT NULL DEFAULT 0,   -- -100 … 100, the higher the sooner
    run_at        timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,             -- never sent later than this
    max_attempts  smallint NOT NULL DEFAULT 5,
    on_doubt      text NOT NULL DEFAULT 'hold',
    dedupe_key    text,
    order_group   text,                    -- its jobs are sent one after the other, each only after the one before was sent
    reference     text,                    -- the producer's own key
    metadata      jsonb,                   -- the producer's own, handed back with every outcome
    producer      text NOT NULL DEFAULT '',        -- the bound role whose dedupe_key and order_group these are; empty: everybody else's
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Does not come again, unlike ids and epochs, which a restored backup hands out once more: a journal speaks of a row only with
    -- its token. Not random() alone, whose seed a producer may have set; a random UUID would cost ten times as much.
    token         bigint NOT NULL
                  DEFAULT timestamp_hash_extended(clock_timestamp()::timestamp, (random() * 9e18)::bigint),
    address       text NOT NULL DEFAULT '',        -- the recipient in one spelling
    rendered      boolean NOT NULL DEFAULT false,  -- the variables stand in the body
    confirms      boolean NOT NULL DEFAULT false,  -- the one message that tells of an opt-out
    opted_out     boolean NOT NULL DEFAULT false,  -- refused at INSERT: it moves to the archive with the same statement
    held          boolean NOT NULL DEFAULT false,  -- waits for another job of its order group
    scheduled     boolean NOT NULL DEFAULT false,  -- stands in no line: waits for due_at, or is held
    due_at        timestamptz,
    attempt       integer NOT NULL DEFAULT 0,      -- counts claims: with claimed_epoch it names one claim
    failures      smallint NOT NULL DEFAULT 0,     -- attempts used up
    worker_deaths smallint NOT NULL DEFAULT 0,     -- workers that died, or grew too large, while they prepared it
    claimed_epoch bigint,                  -- no index may name this or the next column: a claim stays HOT
    claimed_at    timestamptz,
    error         text,                    -- of the last attempt
    error_class   text,
    -- Position in the device's line: run_at in microseconds, moved ahead by priority. Not the primary key, so that the
    -- planner cannot answer "the next of this device" with a scan of the whole table in id order.
    ord           bigint NOT NULL GENERATED ALWAYS AS (
        (extract(epoch FROM run_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint - (priority::bigint << 52)
    ) STORED,
    -- A device has one line for each campaign and class, so that what may not be sent now stands in nobody's way.
    lane          text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(campaign, '') || '/' || class) STORED
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);

CREATE INDEX jobs_line ON shardd.jobs (device_id, lane, ord, id) WHERE NOT scheduled AND device_id IS NOT NULL;
CREATE INDEX jobs_pool ON shardd.jobs (device_group, lane, ord, id) WHERE NOT scheduled AND device_id IS NULL;
CREATE INDEX jobs_assigned ON shardd.jobs (device_id) WHERE device_group IS NOT NULL AND device_id IS NOT NULL;
CREATE INDEX jobs_due ON shardd.jobs (due_at) WHERE scheduled AND NOT held;
CREATE INDEX jobs_expiry ON shardd.jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_held ON shardd.jobs (producer, order_group, id) WHERE held;
CREATE INDEX jobs_order ON shardd.jobs (producer, order_group, id) WHERE order_group IS NOT NULL;
CREATE INDEX jobs_foremost ON shardd.jobs (producer, order_group) WHERE order_group IS NOT NULL AND NOT held;
CREATE INDEX jobs_campaign ON shardd.jobs (campaign, id) WHERE campaign IS NOT NULL;
CREATE INDEX jobs_reference ON shardd.jobs (reference, producer) WHERE reference IS NOT NULL;

-- A row for each order group that may be added to: who adds locks it. It says nothing, so that retention may delete any.
CREATE TABLE shardd.order_groups (
    producer text NOT NULL,
    name     text NOT NULL,
    PRIMARY KEY (name, producer)
);

CREATE TABLE shardd.dedupe_keys (
    producer   text NOT NULL DEFAULT '',
    key        text NOT NULL,
    job_id     bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, producer)
);

CREATE TABLE shardd.archive (
    id            bigint NOT NULL,
    device_id     text,
    device_group  text,
    recipient     text NOT NULL,
    kind          text NOT NULL,
    body          text NOT NULL,
    variables     jsonb,
    media         text,
    file_name     text,
    mime_type     text,
    details       jsonb,
    class         text NOT NULL,
    campaign      text,
    priority      smallint NOT NULL,
    run_at        timestamptz NOT NULL,
    expires_at    timestamptz,
    max_attempts  smallint NOT NULL,
    on_doubt      text NOT NULL,
    dedupe_key    text,
    order_group   text,
    reference     text,
    metadata      jsonb,
    producer      text NOT NULL,
    created_at    timestamptz NOT NULL,
    token         bigint NOT NULL,
    rendered      boolean NOT NULL,
    confirms      boolean NOT NULL,
    attempt       integer NOT NULL,
    failures      smallint NOT NULL,
    claimed_epoch bigint,
    claimed_at    timestamptz,
    state         text NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT now(),
    message_id    text,
    error         text,
    error_class   text,
    delivered_at  timestamptz,
    read_at       timestamptz,
    CONSTRAINT archived_state_is_final CHECK (state IN
        ('sent', 'failed', 'cancelled', 'in_doubt', 'expired', 'opted_out'))
) PARTITION BY RANGE (settled_at);

CREATE INDEX archive_id ON shardd.archive (id);
CREATE INDEX archive_message ON shardd.archive (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX archive_unsent ON shardd.archive (state, id) WHERE state <> 'sent';
CREATE INDEX archive_order ON shardd.archive (producer, order_group, id) WHERE order_group IS NOT NULL AND state <> 'sent';
CREATE INDEX archive_campaign ON shardd.archive (campaign, settled_at) INCLUDE (state) WHERE campaign IS NOT NULL;
CREATE INDEX archive_reference ON shardd.archive (reference, producer) WHERE reference IS NOT NULL;

-- Makes the partitions of this month and the two that follow. Called at every start and every minute: a month that nobody
-- prepared falls into no partition and would stop every settle, so the default partition catches it. One at a time makes them: the
-- lock conflicts with itself, no reader or writer waits for it, and only the owner can take it. Making one, however, waits for
-- whoever reads; it gives up after a second, because everybody who settles would wait behind it.
CREATE FUNCTION shardd.prepare_archive() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
DECLARE
    first date := date_trunc('month', now() AT TIME ZONE 'UTC')::date;
    month date;
BEGIN
    LOCK TABLE ONLY shardd.archive IN SHARE UPDATE EXCLUSIVE MODE;
    FOR i IN 0 .. 2 LOOP
        month := first + make_interval(months => i);
        CONTINUE WHEN to_regclass('shardd.archive_' || to_char(month, 'YYYY_MM')) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE shardd.%I PARTITION OF shardd.archive FOR VALUES FROM (%L) TO (%L)',
                'archive_' || to_char(month, 'YYYY_MM'),
                month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
            -- Of its row type somebody could make a column, and the month could never be dropped.
            EXECUTE format('REVOKE ALL ON TYPE shardd.%I FROM PUBLIC', 'archive_' || to_char(month, 'YYYY_MM'));
        EXCEPTION WHEN check_violation THEN
            -- The default partition has rows of this month already, from a time without a supervisor: it keeps the month.
            NULL;
        END;
    END LOOP;
END $$;

CREATE TABLE shardd.archive_other PARTITION OF shardd.archive DEFAULT;
SELECT shardd.prepare_archive();

-- Ends jobs that nobody has in flight, without a claim. Returns the ids of those that ended.
CREATE FUNCTION shardd.end_jobs(ids bigint[], state text, error text, error_class text)
    RETURNS SETOF bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM shardd.jobs j WHERE j.id = ANY (end_jobs.ids) AND j.claimed_epoch IS NULL RETURNING *
    )
    INSERT INTO shardd.archive (
         id, device_id, device_group, recipient, kind, body, variables, media, file_name, mime_type, details, class, campaign,
         priority, run_at, expires_at, max_attempts, on_doubt, dedupe_key, order_group, reference, metadata, producer, created_at,
         token, rendered, confirms, attempt, failures, state, error, error_class)
    SELECT
         id, device_id, device_group, recipient, kind, body, variables, media, file_name, mime_type, details, class, campaign,
         priority, run_at, expires_at, max_attempts, on_doubt, dedupe_key, order_group, reference, metadata, producer, created_at,
         token, rendered, confirms, attempt, failures, end_jobs.state, end_jobs.error, end_jobs.error_class
      FROM gone
    RETURNING id
$$;
