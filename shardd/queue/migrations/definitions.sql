-- Applied at the end of every migration run: what this release defines in Python (`shardd/queue/columns.py`, `shardd/states.py`).

-- Transports that devices may name, and states with those that they may change to. None is removed: during an upgrade, a host with
-- the earlier release may migrate after one with the later.
INSERT INTO shardd.transports (name) SELECT unnest(array[${transports}]) ON CONFLICT DO NOTHING;

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
