-- Who owns which shard. All times are of the database's clock.

-- name: register_node
-- A supervisor has started: its incarnation replaces an earlier one of the same name.
INSERT INTO shardd.nodes AS n (name, incarnation, shards, version) VALUES (%(node)s, %(incarnation)s, %(shards)s, %(version)s)
ON CONFLICT (name) DO UPDATE SET incarnation = EXCLUDED.incarnation, shards = EXCLUDED.shards, version = EXCLUDED.version,
    started_at = now(), seen_at = now();

-- name: live_nodes
-- Every node that was seen within `ttl` seconds.
SELECT name, incarnation, shards FROM shardd.nodes WHERE seen_at > now() - make_interval(secs => %(ttl)s) ORDER BY name;

-- name: renew_leases
-- Says that this incarnation is alive and prolongs the leases under its epochs. A lease that has run out is not renewed: somebody
-- may be taking it over. Returns the epochs that are still good.
WITH seen AS (
    UPDATE shardd.nodes SET seen_at = now() WHERE name = %(node)s AND incarnation = %(incarnation)s RETURNING 1
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
-- Takes a shard that is free, has run out, or belongs to an earlier incarnation of this node. Returns the new epoch, or no row when
-- another node holds it, or when this incarnation is itself an earlier one: two supervisors under one name must not take shards
-- from each other for ever.
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
-- Gives shards back, so that another node need not wait for them to run out.
DELETE FROM shardd.leases WHERE epoch = ANY (%(epochs)s::bigint[]) RETURNING shard;

-- name: forget_node
-- A supervisor that stopped in order is not waited for.
UPDATE shardd.nodes SET seen_at = '-infinity' WHERE name = %(node)s AND incarnation = %(incarnation)s;
