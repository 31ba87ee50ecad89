"""What comes back from recipients: receipts, messages with opt-outs among them, and the webhooks of platforms.

Promises: an opt-out takes effect on this node as soon as it is received, before it is stored; its message is in the spool until
it is, because WhatsApp delivers it only once. A platform is answered with 200 only once what it reported is on the disk. Receipts
are written in batches, in any order: a message that was delivered did not fail. A status that names a claim settles a job whose
answer was lost. A message that the recipient's phone cannot decrypt is sent again by one new job at most, or reported.

How it fails: while the database is unreachable, messages and receipts of platforms wait on the disk, other receipts in memory, up
to a bound; beyond it a platform is told to repeat. What waits for long, or is lost, is a problem in the status.

Never: accepts a report without Meta's signature or at another path than the secret one of a device, or lets a slow or unknown
peer block a known one.
"""
