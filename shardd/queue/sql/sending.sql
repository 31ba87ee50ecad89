-- What programs with a sending token do, each as the role of its token.

-- name: insert_given
-- Inserts a job, with some of the columns that producers may give. Returns its id; no row: there is one with this dedupe key.
INSERT INTO shardd.jobs (${given}) VALUES (${given_values}) RETURNING id;

-- name: id_of_dedupe_key
-- The job that was inserted first with a key, if the role may still see it.
SELECT id FROM shardd.outcome_by_dedupe_key(%(dedupe_key)s);

-- name: seen_job
-- One job, if the role may see it.
SELECT ${shown}, o.waits_for, o.attempt FROM shardd.outcome(%(id)s) o;

-- name: seen_by_reference
-- The jobs with a reference that the role sees, newest first.
SELECT ${shown}, o.waits_for, o.attempt FROM shardd.outcomes_by_reference(%(reference)s) o LIMIT %(most)s;

-- name: seen_by_dedupe_key
-- The job with a dedupe key, if the role may see it.
SELECT ${shown}, o.waits_for, o.attempt FROM shardd.outcome_by_dedupe_key(%(dedupe_key)s) o;

-- name: newest_seen
-- The newest jobs that the role sees, of those with ids from `first` to `last`.
SELECT ${shown}, o.waits_for, o.attempt FROM shardd.newest_outcomes(%(most)s, %(first)s, %(last)s) o;

-- name: last_event
-- The position of the newest event, also of one that cannot be read yet.
SELECT xid || '-' || id FROM shardd.outbox ORDER BY xid DESC, id DESC LIMIT 1;
