-- Forgetting a person, for operators through `shardd opt-out forget`.

-- name: forget_person
-- Stops messages to the persons with these addresses and erases what the list, the map and the inbox know of them: see shardd.forget.
SELECT addresses, entries, messages, ended FROM shardd.forget(%(addresses)s::text[], %(by)s);

-- name: jobs_of_person
-- Which of up to `most` finished jobs after the id `after` were for these addresses, and the last id that was looked at.
WITH part AS MATERIALIZED (SELECT id, address FROM shardd.archive WHERE id > %(after)s ORDER BY id LIMIT %(most)s)
SELECT max(id) AS last, coalesce(array_agg(id) FILTER (WHERE address = ANY (%(addresses)s::text[])), '{}') AS jobs FROM part;

-- name: erase_person
-- Erases the persons with these addresses from events and from these jobs. Returns how many of each.
SELECT shardd.erase_events(%(addresses)s::text[], %(jobs)s::bigint[]) AS events,
       shardd.erase_jobs(%(addresses)s::text[], %(jobs)s::bigint[]) AS jobs;

-- name: live_jobs_of_person
-- How many jobs to these addresses are in flight.
SELECT count(*) FROM shardd.jobs WHERE address = ANY (%(addresses)s::text[]);

-- name: show_forgotten
-- When a person with this address was forgotten, and by whom; no row: they were not.
SELECT f.created_at, f.created_by FROM shardd.forgotten f WHERE f.pseudonym = shardd.pseudonym(%(address)s);
