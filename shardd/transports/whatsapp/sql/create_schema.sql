-- The store's own schema. No other role gets anything on it: its tables hold the keys of every account.
CREATE SCHEMA IF NOT EXISTS {schema}
