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
        CREATE ROLE producer LOGIN IN ROLE shardd_producer;
    END IF;
END
$$;
