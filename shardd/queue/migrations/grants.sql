-- Applied at the end of every migration run, after `revokes.sql` and once the role exists: what producers may do, and nothing else.
-- What an earlier release gave them goes first.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT c.oid::regclass AS name FROM pg_class c
                WHERE c.relnamespace = 'shardd'::regnamespace AND 'shardd_producer'::regrole IN (
                    SELECT a.grantee FROM aclexplode(c.relacl) a
                    UNION ALL SELECT a.grantee FROM pg_attribute t CROSS JOIN aclexplode(t.attacl) a WHERE t.attrelid = c.oid) LOOP
        EXECUTE format('REVOKE ALL ON TABLE %s FROM shardd_producer', one.name);
    END LOOP;
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                WHERE p.pronamespace = 'shardd'::regnamespace
                  AND 'shardd_producer'::regrole IN (SELECT a.grantee FROM aclexplode(p.proacl) a) LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM shardd_producer', one.name);
    END LOOP;
END $$;

GRANT USAGE ON SCHEMA shardd TO shardd_producer;
GRANT INSERT (${given})
    ON shardd.jobs TO shardd_producer;
-- INSERT … RETURNING id
GRANT SELECT (id) ON shardd.jobs TO shardd_producer;
GRANT SELECT, INSERT (id, label, weight, device_cap) ON shardd.campaigns TO shardd_producer;
GRANT INSERT (recipient, note), SELECT (address, recipient, source, said_at, created_at) ON shardd.opt_outs TO shardd_producer;
GRANT SELECT ON shardd.outcomes, shardd.events, shardd.visible_campaigns, shardd.visible_opt_outs, shardd.inbox TO shardd_producer;
-- Functions that a view or another function calls are executed with the rights of who asks.
GRANT EXECUTE ON FUNCTION shardd.read_events(text, integer, text[], text), shardd.events_end(), shardd.outcome(bigint),
      shardd.outcomes_by_reference(text), shardd.outcome_by_dedupe_key(text), shardd.newest_outcomes(integer, bigint, bigint), shardd.message(bigint),
      shardd.iso_time(timestamptz), shardd.event_id(bigint, bigint), shardd.json_fault(jsonb, integer), shardd.decimals(jsonb),
      shardd.refuse(text, text, text, text, text), shardd.bound_as(), shardd.bindings(),
      shardd.sees_all(), shardd.confirm_plan(), shardd.refuse_bound_reader(text),
      shardd.reads_inbox(), shardd.sees_inbox() TO shardd_producer;

-- A member of shardd_inbox that is no producer reads the inbox, and nothing else.
DO $$
BEGIN
    IF to_regrole('shardd_inbox') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA shardd TO shardd_inbox;
        GRANT SELECT ON shardd.inbox TO shardd_inbox;
        GRANT EXECUTE ON FUNCTION shardd.message(bigint), shardd.bindings(), shardd.bound_as(), shardd.reads_inbox(), shardd.sees_inbox(),
              shardd.refuse(text, text, text, text, text) TO shardd_inbox;
    END IF;
END $$;
