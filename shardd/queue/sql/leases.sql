-- Which node owns which shard. All times are by the database's clock. A statement of a node counts only if it knows the last beat: `beat`, or
-- `next` if that was stored without an answer. Otherwise another supervisor is this node now, perhaps one with the same incarnation: a
-- machine that was resumed from a snapshot, beside the one of which the snapshot was made.

-- name: register_node
-- Records the start of a supervisor on a state folder (`id`), unless another one may be running on a copy of it: an earlier incarnation is
-- dead if it held the very lock that this one holds (`place`) and its last beat is in the folder (`former`), or was silent for `ttl` seconds
-- and has no lease. Returns the beats; no row: refused.
INSERT INTO shardd.nodes AS n
    (id, name, incarnation, shards, version, pid, host, state_dir, place, ttl, margin, beats, beat, beat_at, address)
VALUES (%(id)s, %(name)s, %(incarnation)s, %(shards)s, %(version)s, %(pid)s, %(host)s, %(state_dir)s, %(place)s, %(ttl)s, %(margin)s, 1, %(next)s,
        now(), host(inet_client_addr()))
ON CONFLICT (id) DO UPDATE SET
    name = EXCLUDED.name, incarnation = EXCLUDED.incarnation, shards = EXCLUDED.shards, version = EXCLUDED.version, pid = EXCLUDED.pid,
    host = EXCLUDED.host, state_dir = EXCLUDED.state_dir, place = EXCLUDED.place, started_at = now(), seen_at = now(),
    away_since = NULL, leaving_at = NULL, timeline = NULL, rival = NULL, rival_at = NULL, ttl = EXCLUDED.ttl, margin = EXCLUDED.margin,
    earlier_beats = (n.earlier_beats || n.beat)[greatest(1, cardinality(n.earlier_beats) - 14):],
    beats = n.beats + 1, beat = EXCLUDED.beat, beat_at = EXCLUDED.beat_at, address = EXCLUDED.address
 WHERE n.incarnation = EXCLUDED.incarnation OR (n.place = EXCLUDED.place AND n.beat = ANY (%(former)s::uuid[]))
    OR (n.seen_at <= now() - make_interval(secs => %(ttl)s)
        AND NOT EXISTS (SELECT FROM shardd.leases l WHERE l.node_id = n.id AND l.expires_at > now()))
RETURNING beats, extract(epoch FROM beat_at)::float8 AS at,
          (SELECT extract(epoch FROM max(began_at))::float8 FROM shardd.lives) AS life;

-- name: last_beat
-- What is known of a node, alive or not.
SELECT name, incarnation, coalesce(pid, 0) AS pid, host, state_dir, address, beats, beat, earlier_beats,
       extract(epoch FROM beat_at)::float8 AS at
  FROM shardd.nodes WHERE id = %(id)s;

-- name: all_nodes
-- Every node that is not forgotten yet, and what it does, since when: it is alive if it was seen within its own lease's time (it is `silent`
-- otherwise, or has `stopped`), and takes shards if it is `serving`. `seen_ago` and `rival_age` in seconds.
SELECT id, name, incarnation, shards, version, coalesce(pid, 0) AS pid, host, state_dir, place, ttl, margin, started_at, cordoned_at, summary, state,
       beat, timeline, CASE state WHEN 'silent' THEN seen_at WHEN 'leaving' THEN leaving_at WHEN 'away' THEN away_since WHEN 'cordoned' THEN cordoned_at END
       AS since, nullif(seen_at, '-infinity') AS seen_at, extract(epoch FROM now() - nullif(seen_at, '-infinity'))::float8 AS seen_ago, rival, extract(epoch FROM now() - rival_at)::float8 AS rival_age
  FROM (SELECT *, CASE WHEN seen_at = '-infinity' THEN 'stopped'
                       WHEN seen_at <= now() - make_interval(secs => ttl) THEN 'silent'
                       WHEN leaving_at IS NOT NULL THEN 'leaving'
                       WHEN away_since IS NOT NULL THEN 'away'
                       WHEN cordoned_at IS NOT NULL THEN 'cordoned'
                       ELSE 'serving' END AS state
          FROM shardd.nodes) n
 ORDER BY name, id;

-- name: node_names
-- The names of all nodes that are not forgotten yet.
SELECT name FROM shardd.nodes;

-- name: held_leases
-- Every lease that has not expired, and for how many seconds it is valid without a renewal.
SELECT shard, node_id, extract(epoch FROM expires_at - now())::float8 AS seconds_left FROM shardd.leases WHERE expires_at > now();

-- name: database_time
-- The database's clock.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: report_rival
-- Tells a live node of a supervisor that was refused because of it, and from where.
UPDATE shardd.nodes SET rival = %(rival)s || coalesce(' at ' || host(inet_client_addr()), ''), rival_at = now() WHERE incarnation = %(incarnation)s;

-- name: renew_leases
-- Records that this incarnation is alive, and whether it is away or `leaving` (see release_leases), and renews the leases under its epochs. An
-- expired lease is not renewed: another node may be taking it over. Returns the epochs that are still valid, and the node's beats; NULL, and
-- nothing is changed, if this supervisor is not the node's present one; and the life of the database (see last_life); and the last migration: a newer release may have applied one. An epoch identifies a
-- lease only together with its node: a fail-over that loses commits can hand out a number again.
WITH seen AS (
    UPDATE shardd.nodes SET seen_at = now(), beats = beats + (beat IS DISTINCT FROM %(next)s)::integer, beat = %(next)s, beat_at = now(),
           address = host(inet_client_addr()), away_since = CASE WHEN %(away)s THEN coalesce(away_since, now()) END,
           leaving_at = CASE WHEN %(leaving)s THEN coalesce(leaving_at, now()) ELSE leaving_at END, timeline = %(timeline)s
     WHERE id = %(id)s AND incarnation = %(incarnation)s AND beat IN (%(beat)s, %(next)s)
    RETURNING beats, extract(epoch FROM beat_at)::float8 AS at
), renewed AS (
    UPDATE shardd.leases SET expires_at = now() + make_interval(secs => %(ttl)s)
     WHERE epoch = ANY (%(epochs)s::bigint[]) AND node_id = %(id)s AND expires_at > now() AND EXISTS (SELECT FROM seen)
    RETURNING epoch
)
SELECT array(SELECT epoch FROM renewed) AS epochs, seen.beats, seen.at, extract(epoch FROM life.began_at)::float8 AS life, life.doubt,
       coalesce((SELECT max(version) FROM shardd.migrations), 0) AS migrations
  FROM (SELECT) AS always LEFT JOIN seen ON true
  LEFT JOIN (SELECT began_at, doubt FROM shardd.lives ORDER BY began_at DESC LIMIT 1) AS life ON true;

-- name: go_on_with
-- Accepts that the database has lost the last beats of this supervisor: `known` is what it has instead, unless it has changed meanwhile.
UPDATE shardd.nodes SET beat = %(beat)s, beats = greatest(beats, %(beats)s)
 WHERE id = %(id)s AND incarnation = %(incarnation)s AND beat IS NOT DISTINCT FROM %(known)s;

-- name: last_life
-- The present life of the database: when it began, and what is doubted about it; and the time.
SELECT extract(epoch FROM began_at)::float8 AS began, doubt, extract(epoch FROM now())::float8 AS now FROM shardd.lives ORDER BY began_at DESC LIMIT 1;

-- name: doubt_life
-- Records why nothing may be claimed until a new life of the database begins.
UPDATE shardd.lives SET doubt = %(doubt)s, doubted_at = now()
 WHERE began_at = (SELECT max(began_at) FROM shardd.lives) AND doubt IS NULL;

-- name: begin_life
-- A person has said what may have been done that this database does not know.
INSERT INTO shardd.lives (how) VALUES (%(how)s);

-- name: release_earlier_leases
-- Ends the leases of earlier incarnations that are dead for certain: of this node, and of one that had this state folder's lock under
-- another id and whose last beat is in the folder, which is recorded as dead.
WITH dead AS (
    UPDATE shardd.nodes SET seen_at = '-infinity' WHERE place = %(place)s AND id <> %(id)s AND beat = ANY (%(former)s::uuid[]) RETURNING id
)
DELETE FROM shardd.leases l USING shardd.epochs e
 WHERE e.epoch = l.epoch AND e.incarnation <> %(incarnation)s
   AND (l.node_id = %(id)s OR l.node_id IN (SELECT id FROM dead))
RETURNING l.shard;

-- name: take_lease
-- Takes a shard that is free or whose lease has expired; with `only_own`, one whose last lease is this node's. Returns the new epoch, or no row when another node holds it, or when this
-- supervisor is not the node's present one.
WITH free AS MATERIALIZED (
    SELECT %(shard)s::integer AS shard
     WHERE EXISTS (SELECT FROM shardd.nodes
                    WHERE id = %(id)s AND incarnation = %(incarnation)s AND beat IN (%(beat)s, %(next)s))
       AND NOT EXISTS (
         SELECT FROM shardd.leases WHERE shard = %(shard)s AND expires_at > now() AND node_id <> %(id)s FOR UPDATE)
       AND (NOT %(only_own)s OR EXISTS (SELECT FROM shardd.leases WHERE shard = %(shard)s AND node_id = %(id)s))
), next AS (
    INSERT INTO shardd.epochs (shard, node, incarnation) SELECT shard, %(name)s, %(incarnation)s FROM free RETURNING epoch, shard
)
INSERT INTO shardd.leases AS l (shard, epoch, node_id, expires_at)
SELECT shard, epoch, %(id)s, now() + make_interval(secs => %(ttl)s) FROM next
ON CONFLICT (shard) DO UPDATE SET epoch = EXCLUDED.epoch, node_id = EXCLUDED.node_id, expires_at = EXCLUDED.expires_at
 WHERE l.expires_at <= now() OR l.node_id = EXCLUDED.node_id
RETURNING epoch;

-- name: release_leases
-- Releases a node's shards, so that another node need not wait for the leases to expire. `drained`: the epochs under which nothing is in
-- flight. `leaving`: the node stops, so the others share without it from the same moment on.
WITH me AS (
    SELECT FROM shardd.nodes WHERE id = %(id)s AND incarnation = %(incarnation)s AND beat IN (%(beat)s, %(next)s)
), drained AS (
    UPDATE shardd.epochs SET drained_at = now() WHERE epoch = ANY (%(drained)s::bigint[]) AND EXISTS (SELECT FROM me)
), leaving AS (
    UPDATE shardd.nodes SET leaving_at = coalesce(leaving_at, now()) WHERE %(leaving)s AND id = %(id)s AND EXISTS (SELECT FROM me)
)
DELETE FROM shardd.leases
 WHERE epoch = ANY (%(epochs)s::bigint[]) AND node_id = %(id)s AND EXISTS (SELECT FROM me) RETURNING shard;

-- name: any_lease
-- Whether a node serves any shard.
SELECT EXISTS (SELECT FROM shardd.leases WHERE expires_at > now());

-- name: node_registration
-- What a command can know about a node that does not answer: its process, seconds since its last sign of life, and the number of its shards. No
-- row when there was no sign of life for `ttl` seconds, or the node was stopped cleanly. The command does not know
-- the node's id, because it was in the state folder.
SELECT pid, extract(epoch FROM now() - seen_at)::float8 AS age,
       (SELECT count(*) FROM shardd.leases l WHERE l.node_id = n.id AND l.expires_at > now()) AS shards
  FROM shardd.nodes n
 WHERE name = %(name)s AND host = %(host)s AND seen_at > now() - make_interval(secs => %(ttl)s)
 ORDER BY seen_at DESC LIMIT 1;

-- name: forget_node
-- Records that a supervisor stopped cleanly, so that no other node waits for it.
UPDATE shardd.nodes SET seen_at = '-infinity' WHERE id = %(id)s AND incarnation = %(incarnation)s AND beat IN (%(beat)s, %(next)s);

-- name: cordon_node
-- Cordons a node that is not, or ends that (`cordoned` false), and has all nodes look at once. Returns its id; no row: nothing was to be changed.
WITH changed AS (
    UPDATE shardd.nodes SET cordoned_at = CASE WHEN %(cordoned)s THEN now() END
     WHERE id = %(id)s AND (cordoned_at IS NOT NULL) <> %(cordoned)s RETURNING id
)
SELECT id, shardd.announce('shardd_leases') FROM changed;

-- name: report_summary
-- Stores what a node says about itself.
UPDATE shardd.nodes SET summary = %(summary)s::jsonb WHERE id = %(id)s AND incarnation = %(incarnation)s;
