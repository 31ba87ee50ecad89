-- Events: an outbox that is written in the same transaction as the change, read in an order that misses nothing, and purged from its old
-- end. A webhook is a reader that shardd runs for a program.

-- The facts of a job are columns and become JSON when they are read: that costs a settlement a quarter of building JSON at once.
-- Append-only, and bounded by purge_events.
CREATE TABLE shardd.outbox (
    xid          xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id           bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    at           timestamptz NOT NULL DEFAULT now(),
    kind         text NOT NULL,
    job_id       bigint,
    device_id    text,
    campaign     text,
    reference    text,
    detail       jsonb,                    -- the data of an event that does not concern a job
    recipient    text,
    device_group text,
    class        text,
    job_kind     text,
    state        text,
    message_id   text,
    error        text,
    error_class  text,
    metadata     jsonb,
    attempt      integer,
    failures     smallint,
    run_at       timestamptz,
    created_at   timestamptz,
    settled_at   timestamptz,
    delivered_at timestamptz,
    read_at      timestamptz,
    resend_of    bigint,
    unreadable_at timestamptz,
    unreadable_why text,
    resent_as    bigint,
    members_without_keys integer,
    revokes      bigint,
    -- Makes the event's name unique: ids are issued again by a restored backup, and by every other database. As of a job (0002_jobs).
    token        bigint NOT NULL
                 DEFAULT timestamp_hash_extended(clock_timestamp()::timestamp, (random() * 9e18)::bigint),
    -- Ids become visible out of order, because transactions do not commit in the order in which they took them. In this order, and up
    -- to the oldest transaction that is still writing, nothing can appear later.
    PRIMARY KEY (xid, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);

CREATE FUNCTION shardd.protect_outbox() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('shardd.maintains_outbox', true) IS DISTINCT FROM 'yes' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', SCHEMA = 'shardd', TABLE = 'outbox',
            MESSAGE = 'events cannot be changed or deleted',
            HINT = 'Old ones are purged automatically: see `events` in the config file.';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER protect_outbox BEFORE UPDATE OR DELETE OR TRUNCATE ON shardd.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.protect_outbox();

-- NOTIFY serialises the commits of all writers, so only one of them at a time notifies; readers poll anyway. The lock is advisory, and
-- any login may hold it: then there are no notifications, and events are read at the next poll.
CREATE FUNCTION shardd.announce_events() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_try_advisory_xact_lock(hashtext('shardd.announce_events')) THEN
        PERFORM shardd.announce('shardd_events');
    END IF;
END $$;

-- Whether events are written: not with `events.keep: 0`.
CREATE FUNCTION shardd.events_enabled() RETURNS boolean LANGUAGE sql STABLE
    RETURN NOT EXISTS (SELECT FROM shardd.settings WHERE name = 'events.keep' AND value = '0');

-- A job ended. Runs with its owner's rights, because a producer's INSERT can end a job immediately.
CREATE FUNCTION shardd.record_ends() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, job_id, device_id, campaign, reference, recipient, device_group, class, job_kind, state,
                                   message_id, error, error_class, metadata, attempt, failures, run_at, created_at, settled_at,
                                   resend_of, members_without_keys, revokes)
        SELECT 'job.' || state, id, device_id, campaign, reference, recipient, device_group, class, kind, state,
               message_id, error, error_class, metadata, attempt, failures, run_at, created_at, settled_at, resend_of,
               members_without_keys, revokes
          FROM ended;
        IF FOUND THEN
            PERFORM shardd.announce_events();
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_ends AFTER INSERT ON shardd.archive REFERENCING NEW TABLE AS ended
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.record_ends();

-- Something changed about a job that had ended: a receipt, a resolved doubt, a platform that could not deliver it after all, or a phone
-- that could not decrypt it.
CREATE FUNCTION shardd.record_changes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, job_id, device_id, campaign, reference, recipient, device_group, class, job_kind, state,
                                   message_id, error, error_class, metadata, attempt, failures, run_at, created_at, settled_at,
                                   delivered_at, read_at, resend_of, unreadable_at, unreadable_why, resent_as, members_without_keys,
                                   revokes)
        SELECT changes.kind, NEW.id, NEW.device_id, NEW.campaign, NEW.reference, NEW.recipient, NEW.device_group, NEW.class, NEW.kind,
               NEW.state, NEW.message_id, NEW.error, NEW.error_class, NEW.metadata, NEW.attempt, NEW.failures, NEW.run_at,
               NEW.created_at, NEW.settled_at, NEW.delivered_at, NEW.read_at, NEW.resend_of, NEW.unreadable_at,
               NEW.unreadable_why, NEW.resent_as, NEW.members_without_keys, NEW.revokes
          FROM (VALUES (1, 'job.' || NEW.state, OLD.state <> NEW.state),
                       (2, 'job.delivered', OLD.delivered_at IS NULL AND NEW.delivered_at IS NOT NULL),
                       (3, 'job.read', OLD.read_at IS NULL AND NEW.read_at IS NOT NULL),
                       (4, 'job.unreadable', OLD.unreadable_why IS DISTINCT FROM NEW.unreadable_why)) AS changes(place, kind, happened)
         WHERE changes.happened ORDER BY changes.place;
        PERFORM shardd.announce_events();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_changes AFTER UPDATE ON shardd.archive FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR (OLD.delivered_at IS NULL AND NEW.delivered_at IS NOT NULL)
          OR (OLD.read_at IS NULL AND NEW.read_at IS NOT NULL) OR OLD.unreadable_why IS DISTINCT FROM NEW.unreadable_why)
    EXECUTE FUNCTION shardd.record_changes();

-- A job that had ended is in the queue again. What retention deletes is not in the queue, so it causes no event. Once per statement,
-- because an operator may bring back a million jobs: a trigger for each row would be half of the work.
CREATE FUNCTION shardd.record_retries() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, job_id, device_id, campaign, reference, recipient, device_group, class, job_kind, state,
                                   metadata, attempt, failures, run_at, created_at, resend_of, revokes)
        SELECT 'job.retried', j.id, j.device_id, j.campaign, j.reference, j.recipient, j.device_group, j.class, j.kind,
               CASE WHEN j.scheduled THEN 'scheduled' ELSE 'queued' END, j.metadata, j.attempt, j.failures, j.run_at, j.created_at, j.resend_of,
               j.revokes
          FROM back JOIN shardd.jobs j ON j.id = back.id ORDER BY j.id;
        IF FOUND THEN
            PERFORM shardd.announce_events();
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_retries AFTER DELETE ON shardd.archive REFERENCING OLD TABLE AS back
    FOR EACH STATEMENT EXECUTE FUNCTION shardd.record_retries();

-- A device's state as it is shown: removed, paused, or its own state.
CREATE FUNCTION shardd.shown_state(device shardd.devices) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN device.removed_at IS NOT NULL THEN 'removed'
                WHEN device.paused_at IS NOT NULL THEN 'paused' ELSE device.state END;

-- A time as ISO 8601 in UTC, whatever the session's time zone.
CREATE FUNCTION shardd.iso_time(moment timestamptz) RETURNS text LANGUAGE sql STABLE
    RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

CREATE FUNCTION shardd.record_device_state() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was text := CASE WHEN TG_OP = 'UPDATE' THEN shardd.shown_state(OLD) END;
    now_is text := shardd.shown_state(NEW);
BEGIN
    IF shardd.events_enabled() THEN
        INSERT INTO shardd.outbox (kind, device_id, detail) VALUES ('device.state', NEW.id, jsonb_build_object(
            'device_id', NEW.id, 'transport', NEW.transport, 'label', NEW.label, 'from', was, 'to', now_is, 'state', NEW.state,
            'reason', CASE WHEN now_is = 'paused' THEN NEW.paused_why ELSE NEW.reason END,
            'until', CASE WHEN now_is NOT IN ('paused', 'removed') THEN shardd.iso_time(NEW.state_until) END));
        PERFORM shardd.announce_events();
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_new_device AFTER INSERT ON shardd.devices FOR EACH ROW EXECUTE FUNCTION shardd.record_device_state();
-- Not for each of the devices that wait because WhatsApp refuses the version of the library (client_outdated, without an end): that is one
-- event, library.state (0016_library).
CREATE TRIGGER record_device_state AFTER UPDATE ON shardd.devices FOR EACH ROW
    WHEN ((OLD.state <> NEW.state OR shardd.shown_state(OLD) <> shardd.shown_state(NEW))
          AND NOT (NEW.state = 'client_outdated' AND NEW.state_until IS NULL AND OLD.state IN ('ready', 'restricted'))
          AND NOT (OLD.state = 'client_outdated' AND OLD.state_until IS NULL AND NEW.state = 'ready'))
    EXECUTE FUNCTION shardd.record_device_state();

-- An event's name: its `webhook-id`, and what a receiver compares to process an event once.
CREATE FUNCTION shardd.event_id(id bigint, token bigint) RETURNS text LANGUAGE sql IMMUTABLE
    RETURN 'evt_' || id || '_' || to_hex(token);

-- Every event; `data` is what a webhook posts. Producers read shardd.events, which shows each of them its own (0009_producers).
CREATE VIEW shardd.all_events AS
    SELECT id, at, kind, job_id, device_id, device_group, campaign, reference,
           CASE WHEN job_id IS NULL THEN coalesce(detail, '{}') ELSE jsonb_build_object(
               'job_id', job_id, 'reference', reference, 'recipient', recipient, 'device_id', device_id,
               'device_group', device_group, 'campaign', campaign, 'class', class, 'kind', job_kind, 'state', state,
               'message_id', message_id, 'error', error, 'error_class', error_class, 'metadata', metadata, 'attempt', attempt,
               'failures', failures, 'run_at', shardd.iso_time(run_at), 'created_at', shardd.iso_time(created_at),
               'settled_at', shardd.iso_time(settled_at), 'delivered_at', shardd.iso_time(delivered_at),
               'read_at', shardd.iso_time(read_at), 'resend_of', resend_of, 'unreadable_at', shardd.iso_time(unreadable_at),
               'unreadable_why', unreadable_why, 'resent_as', resent_as,
               'members_without_keys', members_without_keys, 'revokes', revokes) END AS data,
           xid, shardd.event_id(id, token) AS event_id
      FROM shardd.outbox;

-- Kinds such as job.sent, job.* and * as patterns for LIKE; NULL matches everything.
CREATE FUNCTION shardd.kind_patterns(kinds text[]) RETURNS text[] LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN kinds IS NULL THEN '{%}'
                ELSE array(SELECT replace(replace(replace(kind, '\', '\\'), '_', '\_'), '*', '%') FROM unnest(kinds) kind) END;

-- The position after every event that can be read now: where a program starts that wants only later ones.
CREATE FUNCTION shardd.events_end() RETURNS text LANGUAGE sql STABLE
    RETURN pg_snapshot_xmin(pg_current_snapshot()) || '-0';

-- The next events after a position, oldest first; NULL: from the first that is kept. `kinds`: job.sent, job.*, device.state; NULL: all.
-- A position is opaque: keep the last one that was processed and pass it next time. Nothing is skipped, whatever the order of commits:
-- what a transaction wrote is shown once every transaction that began to write before it has ended. `until`: the position of the last
-- event that is looked at, so that a search for a rare kind ends before the end. Runs with its owner's rights, because the planner reads
-- the outbox in order only without a view that is a security barrier; the filter is that of shardd.events.
CREATE FUNCTION shardd.read_events(after text DEFAULT NULL, most integer DEFAULT 100, kinds text[] DEFAULT NULL, until text DEFAULT NULL)
    RETURNS TABLE ("position" text, id bigint, at timestamptz, kind text, job_id bigint, device_id text, campaign text,
                   reference text, data jsonb, event_id text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last_xid xid8 := '0';
    last_id  bigint := 0;
    end_xid  xid8 := '18446744073709551615';
    end_id   bigint := 0;
    patterns text[] := shardd.kind_patterns(kinds);
    bound    jsonb := shardd.bindings();
    hidden   text[] := CASE WHEN bound IS NULL AND NOT shardd.reads_inbox() THEN '{message.received,message.media}' ELSE '{}' END;
    fine     boolean;
BEGIN
    IF after IS NOT NULL THEN
        IF after !~ '^[0-9]{1,18}-[0-9]{1,18}$' THEN
            fine := shardd.refuse('after', format('after is %L, which is not a position', left(after, 80)),
                'Pass the position of an event that was read, or NULL to start with the first one.', 'events', 'invalid_parameter_value');
        END IF;
        last_xid := split_part(after, '-', 1)::xid8;
        last_id := split_part(after, '-', 2)::bigint;
        IF last_xid > pg_snapshot_xmax(pg_current_snapshot()) THEN
            fine := shardd.refuse('after', format('after is %L, a position of another database', after),
                'A restored copy has new positions: start with NULL, or with shardd.events_end().', 'events', 'invalid_parameter_value');
        END IF;
    END IF;
    IF until IS NOT NULL THEN
        IF until !~ '^[0-9]{1,18}-[0-9]{1,18}$' THEN
            fine := shardd.refuse('until', format('until is %L, which is not a position', left(until, 80)),
                'Pass the position of an event, or NULL to look at all of them.', 'events', 'invalid_parameter_value');
        END IF;
        end_xid := split_part(until, '-', 1)::xid8;
        end_id := split_part(until, '-', 2)::bigint;
    END IF;
    RETURN QUERY
        SELECT e.xid || '-' || e.id, e.id, e.at, e.kind, e.job_id, e.device_id, e.campaign, e.reference, e.data,
               e.event_id
          FROM shardd.all_events e
         WHERE (e.xid, e.id) > (last_xid, last_id) AND (e.xid, e.id) <= (end_xid, end_id) AND e.xid < pg_snapshot_xmin(pg_current_snapshot())
           AND CASE WHEN coalesce(bound ?| array['device:' || e.device_id, 'group:' || e.device_group, 'campaign:' || e.campaign], true)
                    THEN e.kind LIKE ANY (patterns) AND e.kind <> ALL (hidden) END
         ORDER BY e.xid, e.id LIMIT most;
END $$;

-- The progress of each webhook, and the node that delivers for it: one at a time, by this database's clock, under an epoch that is never
-- reused.
CREATE TABLE shardd.webhook_cursors (
    name          text PRIMARY KEY,
    xid           xid8 NOT NULL DEFAULT pg_snapshot_xmin(pg_current_snapshot()),  -- everything up to here is delivered
    id            bigint NOT NULL DEFAULT 0,
    kinds         text[] NOT NULL,
    target        text NOT NULL,                -- a digest of URL and kinds: a change enables the webhook again
    epoch         bigint NOT NULL DEFAULT 1,
    node          text NOT NULL,
    incarnation   uuid NOT NULL,
    expires_at    timestamptz NOT NULL,
    delivered     bigint NOT NULL DEFAULT 0,
    dropped       bigint NOT NULL DEFAULT 0,    -- given up; the last of them are in webhook_failures
    missed        bigint NOT NULL DEFAULT 0,    -- purged before they were delivered
    delivered_at  timestamptz,
    failing_since timestamptz,
    failures      integer NOT NULL DEFAULT 0,   -- in a row
    next_at       timestamptz,                  -- time of the next try
    error         text,
    disabled_at   timestamptz,
    retries_asked bigint NOT NULL DEFAULT 0,    -- how often an operator asked for an immediate try
    created_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Events that a receiver did not accept, as they were sent to it: the newest thousand of each webhook.
CREATE TABLE shardd.webhook_failures (
    name     text NOT NULL REFERENCES shardd.webhook_cursors (name) ON DELETE CASCADE,
    id       bigint NOT NULL,
    event_id text NOT NULL,
    at       timestamptz NOT NULL,
    kind     text NOT NULL,
    body     text NOT NULL,
    tries    integer NOT NULL,
    error    text NOT NULL,
    given_up_at timestamptz NOT NULL DEFAULT now(),
    again    boolean NOT NULL DEFAULT false,    -- an operator wants it sent once more
    PRIMARY KEY (name, id)
);

-- Deletes up to `chunk` events that are older than `keep` or have `most` newer ones, and counts them for the webhooks that miss them.
-- Returns how many: call it until that is less than `chunk`.
CREATE FUNCTION shardd.purge_events(keep interval, most bigint, chunk integer) RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest bigint := (SELECT o.id FROM shardd.outbox o ORDER BY o.xid DESC, o.id DESC LIMIT 1);
    deleted bigint;
BEGIN
    PERFORM set_config('shardd.maintains_outbox', 'yes', true);
    WITH old AS MATERIALIZED (
        SELECT first.xid, first.id
          FROM (SELECT o.xid, o.id, o.at FROM shardd.outbox o ORDER BY o.xid, o.id LIMIT chunk) first
         WHERE first.at < now() - keep OR first.id <= newest - most
    ), gone AS MATERIALIZED (
        DELETE FROM shardd.outbox o USING old WHERE (o.xid, o.id) = (old.xid, old.id) RETURNING o.xid, o.id, o.kind
    ), readers AS MATERIALIZED (
        SELECT w.name, w.xid, w.id, shardd.kind_patterns(w.kinds) AS patterns FROM shardd.webhook_cursors w
    ), missed AS (
        UPDATE shardd.webhook_cursors c SET missed = c.missed + late.events
          FROM (SELECT r.name, count(*) AS events
                  FROM readers r JOIN gone g ON (g.xid, g.id) > (r.xid, r.id) AND g.kind LIKE ANY (r.patterns)
                 GROUP BY r.name) late
         WHERE c.name = late.name
    )
    SELECT count(*) INTO deleted FROM gone;
    PERFORM set_config('shardd.maintains_outbox', '', true);
    RETURN deleted;
END $$;

-- In a database that was restored from a dump, the transaction counter started over: earlier events would never be shown, and webhooks
-- would wait for them forever. This puts such events first, in the order of their ids, and lets a webhook continue with the first that it
-- had not delivered. Such events are those whose number this server has not seen end: it is visible, so it would be below that. Returns
-- how many events there were; without any, it takes one index probe.
CREATE FUNCTION shardd.reposition_restored_events() RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    restored bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM shardd.outbox o WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot()))
        AND NOT EXISTS (SELECT FROM shardd.webhook_cursors c WHERE c.xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
        RETURN 0;
    END IF;
    LOCK TABLE shardd.outbox IN SHARE ROW EXCLUSIVE MODE;
    UPDATE shardd.webhook_cursors c SET xid = '0', id = coalesce(
        (SELECT min(o.id) - 1 FROM shardd.outbox o WHERE (o.xid, o.id) > (c.xid, c.id)),
        (SELECT max(o.id) FROM shardd.outbox o), 0)
     WHERE c.xid >= pg_snapshot_xmax(pg_current_snapshot());
    PERFORM set_config('shardd.maintains_outbox', 'yes', true);
    UPDATE shardd.outbox o SET xid = '0' WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot());
    GET DIAGNOSTICS restored = ROW_COUNT;
    PERFORM set_config('shardd.maintains_outbox', '', true);
    RETURN restored;
END $$;
