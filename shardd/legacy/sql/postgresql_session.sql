-- Moments are written in ISO style with their distance from UTC, whatever the role or the database is set to.
SELECT set_config('TimeZone', 'UTC', false), set_config('DateStyle', 'ISO', false), set_config('bytea_output', 'hex', false)
