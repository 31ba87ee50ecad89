-- Which node owns which shard. All times are by the database's clock.

-- name: register_node
-- Records the start of a supervisor: its incarnation replaces an earlier one of the same name.
INSERT INTO shardd.nodes AS n (name, incarnation, shards, version, pid)
VALUES (%(node)s, %(incarnation)s, %(shards)s, %(version)s, %(pid)s)
ON CONFLICT (name) DO UPDATE SET incarnation = EXCLUDED.incarnation, shards = EXCLUDED.shards, version = EXCLUDED.version,
    pid = EXCLUDED.pid, started_at = now(), seen_at = now(), away_since = NULL;

-- name: live_nodes
-- Every node that was seen within `ttl` seconds, and whether it serves shards.
SELECT name, incarnation, shards, away_since IS NULL AS serves
  FROM shardd.nodes WHERE seen_at > now() - make_interval(secs => %(ttl)s) ORDER BY name;

-- name: renew_leases
-- Records that this incarnation is alive, and whether it is away, and renews the leases under its epochs. An expired lease is not renewed:
-- another node may be taking it over. Returns the epochs that are still valid.
WITH seen AS (
    UPDATE shardd.nodes SET seen_at = now(), away_since = CASE WHEN %(away)s THEN coalesce(away_since, now()) END
     WHERE name = %(node)s AND incarnation = %(incarnation)s RETURNING 1
)
UPDATE shardd.leases SET expires_at = now() + make_interval(secs => %(ttl)s)
 WHERE epoch = ANY (%(epochs)s::bigint[]) AND expires_at > now() AND EXISTS (SELECT FROM seen)
RETURNING epoch;

-- name: release_earlier_leases
-- Ends the leases of earlier incarnations of this node, which the state folder's lock proves dead.
DELETE FROM shardd.leases l USING shardd.epochs e
 WHERE e.epoch = l.epoch AND e.node = %(node)s AND e.incarnation <> %(incarnation)s
RETURNING l.shard;

-- name: take_lease
-- Takes a shard that is free, whose lease has expired, or that belongs to an earlier incarnation of this node. Returns the new epoch, or no
-- row when another node holds it, or when this incarnation is itself an earlier one: two supervisors with the same name must not keep
-- taking shards from each other.
WITH free AS MATERIALIZED (
    SELECT %(shard)s::integer AS shard
     WHERE EXISTS (SELECT FROM shardd.nodes WHERE name = %(node)s AND incarnation = %(incarnation)s)
       AND NOT EXISTS (
         SELECT FROM shardd.leases WHERE shard = %(shard)s AND expires_at > now() AND node <> %(node)s FOR UPDATE)
), next AS (
    INSERT INTO shardd.epochs (shard, node, incarnation) SELECT shard, %(node)s, %(incarnation)s FROM free RETURNING epoch, shard
)
INSERT INTO shardd.leases AS l (shard, epoch, node, expires_at)
SELECT shard, epoch, %(node)s, now() + make_interval(secs => %(ttl)s) FROM next
ON CONFLICT (shard) DO UPDATE SET epoch = EXCLUDED.epoch, node = EXCLUDED.node, expires_at = EXCLUDED.expires_at
 WHERE l.expires_at <= now() OR l.node = EXCLUDED.node
RETURNING epoch;

-- name: release_leases
-- Releases shards, so that another node need not wait for the leases to expire.
DELETE FROM shardd.leases WHERE epoch = ANY (%(epochs)s::bigint[]) RETURNING shard;

-- name: node_registration
-- What a command can know about a node that does not answer: its process, seconds since its last sign of life, whether it is away, and the
-- number of its shards. No row when there was no sign of life for `ttl` seconds, or the node was stopped cleanly.
SELECT pid, extract(epoch FROM now() - seen_at)::float8 AS age, away_since IS NOT NULL AS away,
       (SELECT count(*) FROM shardd.leases l WHERE l.node = n.name AND l.expires_at > now()) AS shards
  FROM shardd.nodes n WHERE name = %(node)s AND seen_at > now() - make_interval(secs => %(ttl)s);

-- name: forget_node
-- Records that a supervisor stopped cleanly, so that no other node waits for it.
UPDATE shardd.nodes SET seen_at = '-infinity' WHERE name = %(node)s AND incarnation = %(incarnation)s;
