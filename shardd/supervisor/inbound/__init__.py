"""What comes back from recipients: receipts, opt-outs, and the notifications of Meta's webhook.

Promises: an opt-out takes effect on this node as soon as it is received, before it is stored; a spool file keeps it over a crash,
because WhatsApp delivers it only once. Receipts are written in batches and never move a job backwards. A message that the
recipient's phone cannot decrypt is sent again by one new job at most, or reported.

How it fails: while the database is unreachable, opt-outs wait in the spool and receipts in memory, up to a bound; an opt-out that
waits for long, or is lost, is a problem in the status.

Never: accepts a webhook call without a valid signature, or lets a slow or unsigned peer block a signed one.
"""
