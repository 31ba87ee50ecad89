-- In case somebody opened it.
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC
