-- Applied at the end of every migration run, so that a role that was created later gets its rights too.
GRANT USAGE ON SCHEMA shardd TO shardd_producer;
GRANT INSERT (device_id, device_group, recipient, kind, body, variables, media, file_name, mime_type, details, class, campaign,
              priority, run_at, expires_at, max_attempts, on_doubt, dedupe_key, order_group, reference, metadata)
    ON shardd.jobs TO shardd_producer;
GRANT SELECT, INSERT (id, label, weight, device_cap) ON shardd.campaigns TO shardd_producer;
GRANT INSERT (recipient, note), SELECT (address, recipient, source, said_at, created_at) ON shardd.opt_outs TO shardd_producer;
-- INSERT … RETURNING id
GRANT SELECT (id) ON shardd.jobs TO shardd_producer;
GRANT SELECT ON shardd.outcomes TO shardd_producer;
REVOKE ALL ON FUNCTION shardd.prepare_archive() FROM PUBLIC;
REVOKE ALL ON FUNCTION shardd.end_jobs(bigint[], text, text, text) FROM PUBLIC;
GRANT SELECT ON shardd.events TO shardd_producer;
REVOKE ALL ON FUNCTION shardd.purge_events(interval, bigint, integer), shardd.mend_events() FROM PUBLIC;
