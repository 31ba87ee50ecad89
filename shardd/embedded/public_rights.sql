-- Run by the embedded database's superuser at every start, in the database `shardd`. What PostgreSQL lets everybody do who may connect,
-- and what would let any login stop the node: advisory locks, which fill the one table of locks that all sessions of the server share;
-- large objects, which fill the disk; and messages of its own in the write-ahead log, which keep the disk busy. Programs need none of
-- them, nor do psql and pg_dump; shardd takes an advisory lock before it notifies. The other databases of the server are closed to
-- everybody but the superuser.
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p
                WHERE p.pronamespace = 'pg_catalog'::regnamespace
                  AND (p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
                       OR p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate', 'lo_truncate64',
                                        'pg_logical_emit_message'))
                  AND (NOT has_function_privilege('shardd', p.oid, 'EXECUTE')
                       OR EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)) LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', one.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO shardd', one.name);
    END LOOP;
    FOR one IN SELECT d.datname AS name FROM pg_database d CROSS JOIN aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
                WHERE d.datname IN ('postgres', 'template1') AND a.grantee = 0 GROUP BY d.datname LOOP
        EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', one.name);
    END LOOP;
END
$$;
