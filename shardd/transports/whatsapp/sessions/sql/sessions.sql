-- Sessions in the library's own tables.

-- name: delete_session
-- Deletes a session and, by its foreign keys, all its rows. The phone still lists it.
DELETE FROM whatsmeow_device WHERE jid = %(jid)s;

-- name: forget_ratchets
-- Deletes what the sessions have agreed with each contact and group; the sessions themselves stay. The next message to each agrees anew.
TRUNCATE whatsmeow_sessions, whatsmeow_sender_keys;

-- name: knows_recipient
-- Whether this contact is known to the session's account: WhatsApp gave it a token for writing to it, or the phone has it as a
-- contact or was written to by it. Looked up by its number and by its hidden id.
WITH contact AS (
    SELECT %(number)s || '@s.whatsapp.net' AS jid
    UNION ALL
    SELECT map.lid || '@lid' FROM whatsmeow_lid_map AS map WHERE map.pn = %(number)s
)
SELECT EXISTS (
    SELECT FROM whatsmeow_privacy_tokens AS token JOIN contact ON contact.jid = token.their_jid
    WHERE token.our_jid IN (%(jid)s, split_part(split_part(%(jid)s, '@', 1), ':', 1) || '@s.whatsapp.net')
      AND length(token.token) > 0
) OR EXISTS (
    SELECT FROM whatsmeow_contacts AS known JOIN contact ON contact.jid = known.their_jid
    WHERE known.our_jid = %(jid)s
) AS found;

-- name: list_sessions
-- Every stored session, without its keys.
SELECT jid, lid, push_name, business_name, platform
FROM whatsmeow_device
ORDER BY jid;

-- name: numbers_of
-- The numbers of these hidden ids, as far as any session has learned them. `lids`: without server.
SELECT lid, pn FROM whatsmeow_lid_map WHERE lid = ANY (%(lids)s::text[]);

-- name: session_digest
-- A digest of the keys of this JID's session; nothing when it is not stored. Asked before every connect: a JID without a row ends the
-- whole process.
SELECT md5(noise_key || identity_key) AS digest FROM whatsmeow_device WHERE jid = %(jid)s;
