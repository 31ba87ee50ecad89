-- Run by the embedded database's superuser at every start, so it changes nothing when all is there.
-- shardd: the daemon's role; owns its database, may not create roles, is not a superuser.
-- shardd_producer: the group of those who insert jobs. producer: a role of that group to log in with.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd') THEN
        CREATE ROLE shardd LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shardd_producer') THEN
        CREATE ROLE shardd_producer NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'producer') THEN
        -- Programs leave connections for the daemon, and none of their statements fills the disk by itself.
        CREATE ROLE producer LOGIN CONNECTION LIMIT 100 IN ROLE shardd_producer;
        ALTER ROLE producer SET temp_file_limit = '1GB';
    END IF;
END
$$;
