"""What comes back from recipients: receipts, opt-outs and Meta's webhook.

Promises: an opt-out holds on this node from the moment it is heard, before it is written; it survives a crash in a spool
file, because WhatsApp tells it only once. Receipts are written in batches and never move a job backwards.

How it fails: while the database is away, opt-outs wait in the spool and receipts in memory, up to a bound.

Never: believes a webhook call without a valid signature, or lets a slow or unsigned peer block a signed one.
"""
