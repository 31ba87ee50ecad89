-- Forgets a session and, by its foreign keys, all that hangs on it. The phone is not told.
DELETE FROM whatsmeow_device WHERE jid = %(jid)s
