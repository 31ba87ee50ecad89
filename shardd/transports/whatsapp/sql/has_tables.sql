-- Whether the library's tables stand where this connection looks for them.
SELECT to_regclass('whatsmeow_device') IS NOT NULL AS found
