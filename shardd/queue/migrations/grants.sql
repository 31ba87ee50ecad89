-- Applied at the end of every migration run, so that a role that was created later gets its rights too.
GRANT USAGE ON SCHEMA shardd TO shardd_producer;
GRANT INSERT (device_id, recipient, kind, body, media, file_name, mime_type, details, priority, run_at, max_attempts, on_doubt,
              dedupe_key, reference)
    ON shardd.jobs TO shardd_producer;
-- INSERT … RETURNING id
GRANT SELECT (id) ON shardd.jobs TO shardd_producer;
GRANT SELECT ON shardd.outcomes TO shardd_producer;
REVOKE ALL ON FUNCTION shardd.prepare_archive() FROM PUBLIC;
