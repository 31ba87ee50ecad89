-- Which versions of the WhatsApp library WhatsApp refuses.

-- name: record_refusal
-- WhatsApp refuses this version, since `age` seconds ago. No effect if another node has recorded it.
INSERT INTO shardd.library_refusals (library, node_id, node, since)
VALUES (%(library)s, %(node_id)s, %(node)s, now() - make_interval(secs => %(age)s))
ON CONFLICT DO NOTHING;

-- name: refusal_age
-- For how many seconds this version has been refused; no row: it is not.
SELECT extract(epoch FROM now() - since)::double precision FROM shardd.library_refusals WHERE library = %(library)s;

-- name: claim_probe
-- Whether a probe of this version is due, which the caller then makes: one node at a time, every `every` seconds.
WITH claimed AS (
    UPDATE shardd.library_refusals SET probed_at = now()
     WHERE library = %(library)s AND probed_at <= now() - make_interval(secs => %(every)s)
    RETURNING 1
)
SELECT EXISTS (SELECT FROM claimed);

-- name: end_refusals
-- A login with this version was accepted: it is not refused any more, nor is what this node had installed before an upgrade.
DELETE FROM shardd.library_refusals WHERE library = %(library)s OR node_id = %(node_id)s;

-- name: free_outdated_devices
-- Makes these devices ready again. Returns the ids of those that were client_outdated.
UPDATE shardd.devices SET state = 'ready', reason = NULL, state_since = now(), state_until = NULL
 WHERE id = ANY (%(ids)s::text[]) AND state = 'client_outdated' AND removed_at IS NULL
RETURNING id;
