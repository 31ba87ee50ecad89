-- What people did through the dashboard.

-- name: record_act
-- Adds an act.
INSERT INTO shardd.acts (who, how, address, act, target, detail, result, node)
VALUES (%(who)s, %(how)s, %(address)s, %(act)s, %(target)s, %(detail)s, %(result)s, %(node)s);

-- name: newest_acts
-- The newest `most` acts before the id `before` (null: of all), of `who` (null: of all), newest first.
SELECT id, at, who, how, address, act, target, detail, result, node FROM shardd.acts
 WHERE (%(before)s::bigint IS NULL OR id < %(before)s) AND (%(who)s::text IS NULL OR who = %(who)s)
 ORDER BY id DESC LIMIT %(most)s;
