#!/bin/sh
# Run once by the image of PostgreSQL, on a new database: the roles and the database of shardd/guide/install.md.
set -eu
# psql takes the passwords from the environment, so that they are on no command line, and quotes them.
psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres << 'END'
\getenv daemon SHARDD_DB_PASSWORD
\getenv producer PRODUCER_DB_PASSWORD
CREATE ROLE shardd LOGIN PASSWORD :'daemon';
CREATE ROLE shardd_producer NOLOGIN;
CREATE ROLE shop LOGIN PASSWORD :'producer' CONNECTION LIMIT 20 IN ROLE shardd_producer;
CREATE DATABASE shardd OWNER shardd ENCODING 'UTF8' TEMPLATE template0;
END
