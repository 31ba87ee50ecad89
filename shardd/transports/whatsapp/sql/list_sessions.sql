-- Every stored session, without its keys.
SELECT jid, lid, push_name, business_name, platform
FROM whatsmeow_device
ORDER BY jid
