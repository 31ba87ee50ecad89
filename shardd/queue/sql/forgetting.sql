-- Forgetting a person, for operators through `shardd opt-out forget`, and for the status.

-- name: unfinished_forgetting
-- When the oldest erasure began that no command has worked on for `idle` seconds, and how many there are; no row: there is none.
SELECT min(created_at) AS since, count(*) AS runs FROM shardd.forgetting
 WHERE touched_at < now() - make_interval(secs => %(idle)s) HAVING count(*) > 0;

-- name: unfinished_addresses
-- Addresses of people whose erasure did not end.
SELECT shardd.unfinished_addresses();

-- name: sizes_to_search
-- About how many rows each large table has, as far as PostgreSQL knows.
SELECT sum(c.reltuples) FILTER (WHERE c.relname LIKE 'archive%%') AS jobs, sum(c.reltuples) FILTER (WHERE c.relname = 'outbox') AS events,
       sum(c.reltuples) FILTER (WHERE c.relname = 'messages') AS messages
  FROM pg_class c WHERE c.relnamespace = 'shardd'::regnamespace AND c.relkind = 'r' AND c.reltuples >= 0;

-- name: known_addresses
-- These addresses, and all that the map has of the same persons.
SELECT shardd.all_addresses(%(addresses)s::text[]);

-- name: spellings_of_person
-- The digits by which texts may name these persons: see shardd.spellings.
SELECT shardd.spellings(%(addresses)s::text[]);

-- name: messages_of_person
-- Which of up to `most` messages after an id are theirs, with their addresses there: see shardd.messages_of.
SELECT ids, theirs, last, looked FROM shardd.messages_of(%(addresses)s::text[], %(after)s, %(most)s);

-- name: begin_forgetting
-- Stops messages to these persons: see shardd.begin_forgetting. Returns the id of the run.
SELECT shardd.begin_forgetting(%(addresses)s::text[], %(unfinished)s::text[], %(by)s);

-- name: touch_forgetting
-- A command is working on it.
UPDATE shardd.forgetting SET touched_at = now() WHERE id = %(run)s;

-- name: live_jobs_of_person
-- Which of up to `most` jobs after an id that have not ended are for these addresses, and the last id that was looked at.
WITH part AS MATERIALIZED (SELECT id, address FROM shardd.jobs WHERE id > %(after)s ORDER BY id LIMIT %(most)s)
SELECT max(id) AS last, count(*) AS looked, coalesce(array_agg(id) FILTER (WHERE address = ANY (%(addresses)s::text[])), '{}') AS ids FROM part;

-- name: end_jobs_of_person
-- Ends those of these jobs that are not in flight. Returns how many.
SELECT count(*) FROM shardd.end_jobs(array(SELECT j.id FROM shardd.jobs j WHERE j.id = ANY (%(jobs)s::bigint[]) AND j.claimed_epoch IS NULL),
                                     'opted_out', 'the recipient opted out', 'opted_out');

-- name: remaining_jobs_of_person
-- Those of these jobs that have not ended.
SELECT j.id FROM shardd.jobs j WHERE j.id = ANY (%(jobs)s::bigint[]);

-- name: jobs_of_person
-- Which of up to `most` finished jobs after an id were for these addresses, and the last id that was looked at.
WITH part AS MATERIALIZED (SELECT id, address FROM shardd.archive WHERE id > %(after)s ORDER BY id LIMIT %(most)s)
SELECT max(id) AS last, count(*) AS looked, coalesce(array_agg(id) FILTER (WHERE address = ANY (%(addresses)s::text[])), '{}') AS ids FROM part;

-- name: erase_events
-- Erases these persons from up to `most` events after a position: see shardd.erase_events.
SELECT last_xid::text AS last_xid, last_id, looked, erased
  FROM shardd.erase_events(%(addresses)s::text[], %(jobs)s::bigint[], %(after_xid)s::text::xid8, %(after_id)s, %(most)s);

-- name: erase_webhook_failures
-- Deletes what webhooks did not accept of these persons, at most a thousand events each. Returns how many.
WITH gone AS (
    DELETE FROM shardd.webhook_failures f
     WHERE shardd.names_one_of(f.body, shardd.spellings(%(addresses)s::text[])) OR (f.body::jsonb #>> '{data,job_id}')::bigint = ANY (%(jobs)s::bigint[])
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: erase_messages
-- Deletes these messages. Returns how many.
WITH gone AS (DELETE FROM shardd.messages m WHERE m.id = ANY (%(ids)s::bigint[]) RETURNING 1)
SELECT count(*) FROM gone;

-- name: erase_quotes
-- Erases what they wrote from the jobs that quote it: see shardd.erase_quotes. Returns how many.
SELECT shardd.erase_quotes(%(addresses)s::text[]);

-- name: erase_jobs
-- Erases these persons from these jobs: see shardd.erase_jobs. Returns how many.
SELECT shardd.erase_jobs(%(addresses)s::text[], %(jobs)s::bigint[]);

-- name: finish_forgetting
-- Erases these persons from the list, its log, the map and the contacts, and ends the run. Returns how many rows.
SELECT shardd.finish_forgetting(%(run)s, %(addresses)s::text[]);

-- name: show_forgotten
-- When a person with this address was forgotten, by whom, and whether their rows are erased; no row: they were not.
SELECT f.created_at, f.created_by, NOT EXISTS (SELECT FROM shardd.forgetting r WHERE %(address)s::text = ANY (r.addresses)) AS erased
  FROM shardd.forgotten f WHERE f.pseudonym = shardd.pseudonym(%(address)s);

-- name: other_nodes
-- The nodes but this one, whose state folders a command on this host cannot reach. `id`: of this one's state folder.
SELECT name, host, state_dir FROM shardd.nodes WHERE id <> %(id)s ORDER BY name, host, state_dir;
