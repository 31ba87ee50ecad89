-- Moments (TIMESTAMP) are written in UTC.
SET SESSION time_zone = '+00:00'
