-- The queue. Live jobs are in a small table that is updated in place (HOT: a claim changes no indexed column); finished ones move to
-- an archive partitioned by month. Producers insert into shardd.jobs and read shardd.outcomes.

-- Settings of the config that nodes and triggers have to agree on.
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

-- Recipients who want no more messages. Only the person can take an opt-out back; 0007_opt_outs enforces that and checks the rows.
CREATE TABLE shardd.opt_outs (
    address    text PRIMARY KEY,           -- of the person, as shardd.resolve writes it
    same_as    text,                       -- the listed address of the same person for which this one was added; NULL: it was given itself
    recipient  text NOT NULL,              -- as it was given
    source     text NOT NULL DEFAULT 'producer',
    device_id  text,                       -- that received it
    words      text,                       -- what the recipient wrote
    note       text,
    said_at    timestamptz,                -- when the recipient said so, where that is known
    heard_at   timestamptz NOT NULL DEFAULT now(),  -- the last time they did, as far as known: what they wrote before takes nothing back
    created_by text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT opt_out_source_is_known CHECK (source IN ('producer', 'message', 'operator', 'import'))
);

-- Which device of a group last wrote to a recipient.
CREATE TABLE shardd.contacts (
    device_group text NOT NULL REFERENCES shardd.device_groups (id) ON DELETE CASCADE,
    address      text NOT NULL,
    device_id    text NOT NULL,
    last_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_group, address)
) WITH (fillfactor = 80);

CREATE TABLE shardd.jobs (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    device_id     text,                    -- or device_group: the job gets one of its devices when one is free
    device_group  text,
    recipient     text NOT NULL,
    kind          text NOT NULL DEFAULT 'text',
    body          text NOT NULL DEFAULT '',
    variables     jsonb,                   -- if given, the body is a template with {name} or {name|default}
    media         text,                    -- http(s) URL, data: URI, or a path below the configured folder
    file_name     text,
    mime_type     text,
    details       jsonb,                   -- location: latitude, longitude, name, address; contact: name, phone; template
    reply_to      bigint,                  -- the message (shardd.inbox) that it answers
    quote         jsonb,                   -- that message as it is quoted; {}: it is not
    revokes       bigint,                  -- the job whose message it deletes for everyone; see 0020_revocations
    class         text NOT NULL DEFAULT 'marketing',
    campaign      text,
    priority      smallint NOT NULL DEFAULT 0,   -- -100 … 100; higher is sooner
    run_at        timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,             -- never sent later than this
    max_attempts  smallint NOT NULL DEFAULT 5,
    on_doubt      text NOT NULL DEFAULT 'hold',
    on_unreadable text,                    -- resend or report; NULL: as the config says
    dedupe_key    text,
    order_group   text,                    -- its jobs are sent in order, each only after the one before was sent
    reference     text,                    -- the producer's own key
    metadata      jsonb,                   -- the producer's own, returned with every outcome
    producer      text NOT NULL DEFAULT '',        -- the bound role that owns dedupe_key and order_group; empty: all unbound producers
    created_at    timestamptz NOT NULL DEFAULT now(),
    created_xid   xid8 NOT NULL DEFAULT pg_current_xact_id(),   -- tells whether a person saw it counted: created_at is before the commit
    -- Never repeats, unlike ids and epochs, which a restored backup issues again: journals identify a row by its token, too. Not
    -- random() alone, whose seed a producer may have set; a random UUID would cost ten times as much.
    token         bigint NOT NULL
                  DEFAULT timestamp_hash_extended(clock_timestamp()::timestamp, (random() * 9e18)::bigint),
    address       text NOT NULL DEFAULT '',        -- of the person, as shardd.resolve writes it
    number        text,                    -- of the recipient, where it is written in another form than the address
    rendered      boolean NOT NULL DEFAULT false,  -- the variables have been put into the body
    confirms      boolean NOT NULL DEFAULT false,  -- the confirmation of an opt-out
    resend_of     bigint,                  -- the job whose message it repeats, because the recipient's phone could not decrypt that
    resends       smallint NOT NULL DEFAULT 0,     -- how many such jobs there were, this one included
    opted_out     boolean NOT NULL DEFAULT false,  -- when inserted: it moves to the archive in the same statement
    held          boolean NOT NULL DEFAULT false,  -- waits for another job of its order group
    scheduled     boolean NOT NULL DEFAULT false,  -- in no lane: waits for due_at, or is held
    due_at        timestamptz,
    attempt       integer NOT NULL DEFAULT 0,      -- counts claims: with claimed_epoch it names one claim
    failures      smallint NOT NULL DEFAULT 0,     -- attempts used up
    worker_deaths smallint NOT NULL DEFAULT 0,     -- workers that died, or grew too large, while they prepared it
    claimed_epoch bigint,                  -- no index may name this or the next column: a claim stays HOT
    claimed_at    timestamptz,
    error         text,                    -- of the last attempt
    error_class   text,
    -- Position in the lane: run_at in microseconds, moved forward by priority. Not the primary key, so that the planner cannot answer
    -- "the next of this device" with a scan of the whole table in id order.
    ord           bigint NOT NULL GENERATED ALWAYS AS (
        (extract(epoch FROM run_at - timestamptz '1970-01-01 00:00:00+00') * 1000000)::bigint - (priority::bigint << 52)
    ) STORED,
    -- A device has one lane for each campaign and class, so that jobs that may not be sent now do not block others.
    lane          text COLLATE "C" NOT NULL GENERATED ALWAYS AS (coalesce(campaign, '') || '/' || class) STORED
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000
);

CREATE INDEX jobs_lane ON shardd.jobs (device_id, lane, ord, id) WHERE NOT scheduled AND device_id IS NOT NULL;
CREATE INDEX jobs_pool ON shardd.jobs (device_group, lane, ord, id) WHERE NOT scheduled AND device_id IS NULL;
CREATE INDEX jobs_assigned ON shardd.jobs (device_id) WHERE device_group IS NOT NULL AND device_id IS NOT NULL;
CREATE INDEX jobs_scheduled ON shardd.jobs (device_id) WHERE scheduled AND device_id IS NOT NULL;
CREATE INDEX jobs_due ON shardd.jobs (due_at) WHERE scheduled AND NOT held;
CREATE INDEX jobs_expiry ON shardd.jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_held ON shardd.jobs (producer, order_group, id) WHERE held;
CREATE INDEX jobs_order ON shardd.jobs (producer, order_group, id) WHERE order_group IS NOT NULL;
CREATE INDEX jobs_foremost ON shardd.jobs (producer, order_group) WHERE order_group IS NOT NULL AND NOT held;
CREATE INDEX jobs_campaign ON shardd.jobs (campaign, id) WHERE campaign IS NOT NULL;
CREATE INDEX jobs_quoted ON shardd.jobs ((quote ->> 'sender')) WHERE quote IS NOT NULL;
CREATE INDEX jobs_reference ON shardd.jobs (reference, producer) WHERE reference IS NOT NULL;

-- Until when the pace of its device, or a backoff, keeps a lane from sending, as the node that serves it recorded: waits that are short
-- are not. A row whose moment has passed tells since when the lane may send.
CREATE TABLE shardd.lane_waits (
    device_id text NOT NULL,
    lane      text COLLATE "C" NOT NULL,
    why       text NOT NULL,
    until     timestamptz NOT NULL,
    PRIMARY KEY (device_id, lane)
) WITH (fillfactor = 70);

-- The last revocation of each job that has one. Every revocation changes this row, so that of two at once the second sees the first; no
-- index over the queue and the archive could do that.
CREATE TABLE shardd.revocations (
    revokes bigint PRIMARY KEY,
    job_id  bigint NOT NULL
);

-- A row to lock for each order group that jobs are added to. It contains nothing else, so retention may delete any.
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
    reply_to      bigint,
    quote         jsonb,
    revokes       bigint,
    class         text NOT NULL,
    campaign      text,
    priority      smallint NOT NULL,
    run_at        timestamptz NOT NULL,
    expires_at    timestamptz,
    max_attempts  smallint NOT NULL,
    on_doubt      text NOT NULL,
    on_unreadable text,
    dedupe_key    text,
    order_group   text,
    reference     text,
    metadata      jsonb,
    producer      text NOT NULL,
    created_at    timestamptz NOT NULL,
    token         bigint NOT NULL,
    address       text NOT NULL,
    number        text,
    rendered      boolean NOT NULL,
    confirms      boolean NOT NULL,
    resend_of     bigint,
    resends       smallint NOT NULL DEFAULT 0,
    attempt       integer NOT NULL,
    failures      smallint NOT NULL,
    claimed_epoch bigint,
    claimed_at    timestamptz,
    state         text NOT NULL,
    settled_at    timestamptz NOT NULL DEFAULT now(),
    settled_xid   xid8 NOT NULL DEFAULT pg_current_xact_id(),   -- like jobs.created_xid
    message_id    text,
    error         text,
    error_class   text,
    delivered_at  timestamptz,
    read_at       timestamptz,
    unreadable_at timestamptz,             -- when shardd first heard that a device of the recipient cannot decrypt it
    unreadable_why text,                   -- which device, and what came of it
    resend_at     timestamptz,             -- when shardd.resend_unreadable looks whether to send it again
    resent_as     bigint,                  -- the job that sends it again
    members_without_keys integer,          -- of a group: whose phone got no copy, because its keys could not be had
    CONSTRAINT archived_state_is_final CHECK (state IN
        ('sent', 'failed', 'cancelled', 'in_doubt', 'expired', 'opted_out'))
) PARTITION BY RANGE (settled_at);

CREATE INDEX archive_id ON shardd.archive (id);
CREATE INDEX archive_message ON shardd.archive (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX archive_unsent ON shardd.archive (state, id) WHERE state <> 'sent';
CREATE INDEX archive_lost ON shardd.archive (claimed_epoch, id) WHERE state = 'in_doubt' AND error_class = 'node';
CREATE INDEX archive_order ON shardd.archive (producer, order_group, id) WHERE order_group IS NOT NULL AND state <> 'sent';
CREATE INDEX archive_campaign ON shardd.archive (campaign, state, settled_at) WHERE campaign IS NOT NULL;
CREATE INDEX archive_unreadable ON shardd.archive (unreadable_at) WHERE unreadable_at IS NOT NULL;
CREATE INDEX archive_resend ON shardd.archive (resend_at) WHERE resend_at IS NOT NULL;
CREATE INDEX archive_quoted ON shardd.archive ((quote ->> 'sender')) WHERE quote IS NOT NULL;
CREATE INDEX archive_reference ON shardd.archive (reference, producer) WHERE reference IS NOT NULL;

-- Creates the partitions of this month and the next two. Called at every start and every minute; rows of a month without a partition go
-- to the default partition, because an error would stop every settlement. One caller at a time: the lock conflicts with itself, no
-- reader or writer waits for it, and only the owner can take it. Creating a partition, however, waits for readers; it gives up after a
-- second, because every settlement would wait behind it.
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
            -- Somebody could create a column of its row type, and then the month could not be dropped.
            EXECUTE format('REVOKE ALL ON TYPE shardd.%I FROM PUBLIC', 'archive_' || to_char(month, 'YYYY_MM'));
        EXCEPTION WHEN check_violation THEN
            -- The default partition already has rows of this month, from a time without a supervisor: it keeps the month.
            NULL;
        END;
    END LOOP;
END $$;

CREATE TABLE shardd.archive_other PARTITION OF shardd.archive DEFAULT;
SELECT shardd.prepare_archive();

-- Refuses a change of a finished job's state that the table of transitions (shardd/states.py) does not have.
CREATE FUNCTION shardd.refuse_transition() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', SCHEMA = 'shardd', TABLE = 'archive', COLUMN = 'state',
        MESSAGE = format('job %s is %s and cannot become %s', NEW.id, OLD.state, NEW.state),
        HINT = 'Only jobs in doubt can become something else, once a journal is read, sent ones failed, and failed ones sent. To send '
               'a job again: shardd job retry.';
END $$;

CREATE TRIGGER refuse_transition AFTER UPDATE OF state ON shardd.archive
    FOR EACH ROW WHEN (OLD.state <> NEW.state
                       AND (OLD.state, NEW.state) NOT IN (
                           ('in_doubt', 'sent'), ('in_doubt', 'failed'), ('in_doubt', 'expired'), ('in_doubt', 'opted_out'),
                           ('sent', 'failed'), ('failed', 'sent')))
    EXECUTE FUNCTION shardd.refuse_transition();
