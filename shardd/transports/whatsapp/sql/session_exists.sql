-- Whether the session of this JID is stored. Asked before every connect: a JID without a row ends the whole process.
SELECT EXISTS (SELECT FROM whatsmeow_device WHERE jid = %(jid)s) AS found
