-- Applied at the end of every migration run: what this release defines in Python (`shardd/queue/columns.py`, `shardd/states.py`).

-- Transports that devices may name and what they send, and states with those that they may change to. None is removed: during an
-- upgrade, hosts with the earlier release go on.
INSERT INTO shardd.transports AS t (name, kinds, link_preview) VALUES ${transports}
ON CONFLICT (name) DO UPDATE SET kinds = array(SELECT DISTINCT unnest(t.kinds || EXCLUDED.kinds)),
                                 link_preview = t.link_preview OR EXCLUDED.link_preview
 WHERE NOT t.kinds @> EXCLUDED.kinds OR t.link_preview < EXCLUDED.link_preview;

INSERT INTO shardd.device_states AS s (name, next) VALUES ${device_states}
ON CONFLICT (name) DO UPDATE SET next = array(SELECT DISTINCT unnest(s.next || EXCLUDED.next))
 WHERE NOT s.next @> EXCLUDED.next;

-- Ends jobs that are not in flight, without a claim. Returns the ids of those that ended.
CREATE OR REPLACE FUNCTION shardd.end_jobs(ids bigint[], state text, error text, error_class text)
    RETURNS SETOF bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM shardd.jobs j WHERE j.id = ANY (end_jobs.ids) AND j.claimed_epoch IS NULL RETURNING *
    )
    INSERT INTO shardd.archive (id, ${archived}, failures, state, error, error_class)
    SELECT id, ${archived}, failures, end_jobs.state, end_jobs.error, end_jobs.error_class
      FROM gone
    RETURNING id
$$;

-- Sends messages again that the phones of their recipients could not decrypt: each as a job of its own, on the same device, at its place
-- in the lane, in no order group. That job and the mark in the archive are one transaction, and a marked job is never sent again. A
-- message that somebody may have seen, or must not get, is only reported. Returns what came of each.
CREATE OR REPLACE FUNCTION shardd.resend_unreadable(policy text, max_resends integer, most integer)
    RETURNS TABLE (id bigint, resent_as bigint, why text) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old shardd.archive;
BEGIN
    FOR old IN
        SELECT * FROM shardd.archive a WHERE a.resend_at <= now() ORDER BY a.resend_at LIMIT most FOR UPDATE SKIP LOCKED
    LOOP
        id := old.id;
        resent_as := NULL;
        why := CASE
            WHEN old.state <> 'sent' THEN 'it is ' || old.state
            WHEN old.delivered_at IS NOT NULL OR old.read_at IS NOT NULL THEN 'another device of the recipient has it'
            WHEN coalesce(old.on_unreadable, policy) = 'report' THEN 'on_unreadable is report'
            WHEN old.resends >= max_resends THEN format('it was sent %s times', old.resends + 1)
            WHEN old.expires_at <= now() THEN 'its expires_at has passed'
            WHEN old.confirms OR shardd.opted_out(old.address, '', false) THEN 'the recipient opted out' END;
        IF why IS NULL THEN
            BEGIN
                INSERT INTO shardd.jobs AS j (device_id, resend_of, resends, ${resent})
                SELECT old.device_id, old.id, old.resends + 1, ${resent_old} RETURNING j.id INTO resent_as;
            EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                GET STACKED DIAGNOSTICS why = MESSAGE_TEXT;
            END;
        END IF;
        why := 'the phone of the recipient could not decrypt it; '
               || CASE WHEN resent_as IS NULL THEN 'not sent again: ' || why ELSE 'sent again as job ' || resent_as END;
        UPDATE shardd.archive a SET resend_at = NULL, resent_as = resend_unreadable.resent_as, unreadable_why = why
         WHERE a.id = old.id AND a.settled_at = old.settled_at;
        RETURN NEXT;
    END LOOP;
END $$;

-- Brings finished jobs back into the queue, under their own ids, with all their attempts. Jobs of device groups get a new device, and
-- every job a new token: what journals contain about the old one concerns an earlier message. Returns the ids.
CREATE OR REPLACE FUNCTION shardd.bring_back(ids bigint[]) RETURNS SETOF bigint
    LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH back AS (
        DELETE FROM shardd.archive a WHERE a.id = ANY (bring_back.ids) AND a.state IN (${retryable}) RETURNING *
    )
    INSERT INTO shardd.jobs (id, device_id, ${retried})
    OVERRIDING SYSTEM VALUE
    SELECT id, CASE WHEN device_group IS NULL THEN device_id END, ${retried}
      FROM back ORDER BY id
    RETURNING id
$$;
