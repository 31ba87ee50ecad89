-- Whether this session has a privacy token of this contact, under its number or its hidden id: then it is no stranger to
-- WhatsApp. $1 is the session's JID, $2 the contact's number.
SELECT EXISTS (
    SELECT
    FROM whatsmeow_privacy_tokens AS token
    WHERE token.our_jid IN (%(jid)s, split_part(split_part(%(jid)s, '@', 1), ':', 1) || '@s.whatsapp.net')
      AND (token.their_jid = %(number)s || '@s.whatsapp.net'
           OR token.their_jid = (SELECT map.lid FROM whatsmeow_lid_map AS map WHERE map.pn = %(number)s) || '@lid')
) AS found
