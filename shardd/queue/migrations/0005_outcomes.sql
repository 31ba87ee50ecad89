-- Every job, live or finished, and what it waits for. Its revocation is asked for, not joined: with a join, the newest jobs could not be
-- read from the ends of the indexes. Producers read shardd.outcomes, which shows each of them its own
-- (0009_producers).
CREATE VIEW shardd.all_outcomes AS
    SELECT j.id, j.reference, j.device_id, j.device_group, j.recipient, j.kind, j.class, j.campaign, j.order_group,
           CASE WHEN j.claimed_epoch IS NOT NULL THEN 'sending' WHEN j.scheduled THEN 'scheduled' ELSE 'queued' END AS state,
           CASE WHEN j.claimed_epoch IS NOT NULL THEN NULL
                WHEN c.state = 'cancelled' THEN 'nothing: its campaign was cancelled'
                WHEN j.held THEN coalesce(
                    (SELECT format('job %s of its order group, which is %s', a.id, a.state) FROM shardd.archive a
                      WHERE a.producer = j.producer AND a.order_group = j.order_group AND a.state <> 'sent' AND a.id < j.id ORDER BY a.id LIMIT 1),
                    'the job before it in its order group')
                WHEN j.scheduled AND j.failures > 0 THEN 'the end of a backoff'
                WHEN j.scheduled AND j.error IS NOT NULL THEN j.error
                WHEN j.scheduled THEN 'its time'
                WHEN c.state = 'paused' THEN 'its campaign: paused' || coalesce(', ' || c.why, '')
                WHEN j.device_id IS NULL THEN 'a device of its group'
                WHEN d.removed_at IS NOT NULL THEN 'nothing: its device was removed'
                WHEN d.paused_at IS NOT NULL THEN 'its device: paused' || coalesce(', ' || d.paused_why, '')
                WHEN d.state NOT IN ('ready', 'restricted') THEN 'its device: ' || d.state || coalesce(', ' || d.reason, '')
                WHEN d.settings <> '{}' AND shardd.json_fault(d.settings, 8192) IS NOT NULL
                    THEN 'its device: its settings cannot be read'
                ELSE coalesce(
                    (SELECT format('%s, until %s UTC', w.why, to_char(w.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
                       FROM shardd.lane_waits w WHERE w.device_id = j.device_id AND w.lane = j.lane AND w.until > now()),
                    'its turn') END AS waits_for,
           j.attempt, j.failures, j.max_attempts, j.priority, j.run_at, j.expires_at, j.due_at, j.created_at,
           NULL::timestamptz AS settled_at, NULL::text AS message_id, j.error, j.error_class,
           NULL::timestamptz AS delivered_at, NULL::timestamptz AS read_at, j.metadata, j.reply_to, j.resend_of,
           NULL::timestamptz AS unreadable_at, NULL::text AS unreadable_why, NULL::bigint AS resent_as,
           NULL::integer AS members_without_keys, j.revokes,
           (SELECT r.job_id FROM shardd.revocations r WHERE r.revokes = j.id) AS revoked_by
      FROM shardd.jobs j
      LEFT JOIN shardd.devices d ON d.id = j.device_id
      LEFT JOIN shardd.campaigns c ON c.id = j.campaign
    UNION ALL
    SELECT a.id, a.reference, a.device_id, a.device_group, a.recipient, a.kind, a.class, a.campaign, a.order_group, a.state,
           CASE WHEN a.state = 'in_doubt' AND a.error_class = 'node' THEN 'the state folder of its node, or a person: shardd job resolve'
                WHEN a.state = 'in_doubt' THEN 'a person: shardd job resolve' END,
           a.attempt, a.failures, a.max_attempts, a.priority, a.run_at, a.expires_at, NULL, a.created_at,
           a.settled_at, a.message_id, a.error, a.error_class, a.delivered_at, a.read_at, a.metadata,
           a.reply_to, a.resend_of, a.unreadable_at, a.unreadable_why, a.resent_as, a.members_without_keys, a.revokes,
           (SELECT r.job_id FROM shardd.revocations r WHERE r.revokes = a.id)
      FROM shardd.archive a;

-- Finished jobs that an operator may bring back, with the obstacle, if there is one, in one word.
CREATE VIEW shardd.retries AS
    SELECT a.id, a.state, a.settled_at, a.settled_xid, a.device_id, a.class, a.campaign, a.order_group, a.reference, a.error_class,
           a.kind, a.revokes,
           CASE WHEN a.device_group IS NULL AND (d.id IS NULL OR d.removed_at IS NOT NULL) THEN 'device'
                WHEN a.device_group IS NOT NULL AND g.id IS NULL THEN 'group'
                WHEN a.campaign IS NOT NULL AND coalesce(c.state, 'cancelled') = 'cancelled' THEN 'campaign'
                WHEN a.expires_at <= now() THEN 'expired'
                WHEN shardd.opted_out(a.address, a.class, a.confirms) THEN 'opted_out'
                WHEN k.job_id <> a.id THEN 'key'
                WHEN a.order_group IS NOT NULL AND EXISTS (
                    SELECT FROM shardd.archive o
                     WHERE o.producer = a.producer AND o.order_group = a.order_group AND o.state <> 'sent' AND o.id < a.id
                       AND o.state IN ('expired', 'opted_out')) THEN 'order' END AS obstacle
      FROM shardd.archive a
      LEFT JOIN shardd.devices d ON d.id = a.device_id
      LEFT JOIN shardd.device_groups g ON g.id = a.device_group
      LEFT JOIN shardd.campaigns c ON c.id = a.campaign
      LEFT JOIN shardd.dedupe_keys k ON k.key = a.dedupe_key AND k.producer = a.producer
     WHERE a.state IN ('failed', 'cancelled', 'in_doubt');

-- Brings finished jobs back (shardd.bring_back in definitions.sql), where one that the table's trigger refuses (an earlier version let it
-- in, or its campaign was cancelled a moment ago) stays in the archive and does not keep the others back: `refusal` is the message.
CREATE FUNCTION shardd.retry_jobs(ids bigint[]) RETURNS TABLE (job bigint, refusal text)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one bigint;
BEGIN
    RETURN QUERY SELECT b.id, NULL::text FROM shardd.bring_back(ids) b(id);
EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
    FOREACH one IN ARRAY ids LOOP
        BEGIN
            RETURN QUERY SELECT b.id, NULL::text FROM shardd.bring_back(ARRAY[one]) b(id);
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            GET STACKED DIAGNOSTICS refusal = MESSAGE_TEXT;
            job := one;
            RETURN NEXT;
        END;
    END LOOP;
END $$;
