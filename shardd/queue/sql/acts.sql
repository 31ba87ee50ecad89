-- What people did by the dashboard and by commands.

-- name: record_act
-- Adds an act that happened `age` seconds ago; `began`: the one that begins it, which is not under way any more.
WITH ended AS (DELETE FROM shardd.acts_under_way WHERE act = %(began)s::bigint)
INSERT INTO shardd.acts (at, who, how, address, act, target, detail, result, node)
VALUES (now() - make_interval(secs => %(age)s), %(who)s, %(how)s, %(address)s, %(act)s, %(target)s, %(detail)s, %(result)s, %(node)s);

-- name: begin_act
-- Adds an act that is under way. Returns its id.
WITH begun AS (
    INSERT INTO shardd.acts (who, how, address, act, target, detail, result, node)
    VALUES (%(who)s, %(how)s, %(address)s, %(act)s, %(target)s, %(detail)s, %(result)s, %(node)s) RETURNING id)
INSERT INTO shardd.acts_under_way (act) SELECT id FROM begun RETURNING act;

-- name: see_act
-- Says that an act is still under way.
UPDATE shardd.acts_under_way SET seen_at = now() WHERE act = %(act)s;

-- name: bounds_of_acts
-- The first and the last id; null: there are none.
SELECT min(id) AS first, max(id) AS last FROM shardd.acts;

-- name: newest_acts
-- The newest `most` acts of the ids from `first` to `last`, newest first. `who`: only of this one (null: of all), also where `who` ends with
-- `claim`. `act`: only those called this. `target`: only those whose target has these words, or whose detail has `name` as one of its words,
-- such as one of several devices. `unfinished`: it was under way, and was not seen for `lost_after` seconds.
SELECT a.id, a.at, a.who, a.how, a.address, a.act, a.target, a.detail, a.result, a.node,
       coalesce(u.seen_at < now() - make_interval(secs => %(lost_after)s), false) AS unfinished
  FROM shardd.acts a LEFT JOIN shardd.acts_under_way u ON u.act = a.id
 WHERE a.id BETWEEN %(first)s AND %(last)s
   AND (%(who)s::text IS NULL OR a.who = %(who)s OR right(a.who, length(%(claim)s::text)) = %(claim)s)
   AND (%(act)s::text IS NULL OR a.act = %(act)s)
   AND (%(target)s::text IS NULL OR strpos(' ' || a.target || ' ', ' ' || %(target)s || ' ') > 0
        OR strpos(' ' || translate(a.detail, ',;', '  ') || ' ', ' ' || %(name)s::text || ' ') > 0)
 ORDER BY a.id DESC LIMIT %(most)s;

-- name: unfinished_acts
-- The newest `most` acts that were last seen under way more than `lost_after` and less than `named_for` seconds ago, newest first.
SELECT a.id, a.at, a.who, a.how, a.address, a.act, a.target, a.detail, a.result, a.node, true AS unfinished
  FROM shardd.acts_under_way u JOIN shardd.acts a ON a.id = u.act
 WHERE u.seen_at < now() - make_interval(secs => %(lost_after)s) AND u.seen_at > now() - make_interval(secs => %(named_for)s)
 ORDER BY a.id DESC LIMIT %(most)s;
