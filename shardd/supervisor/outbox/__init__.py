"""Events for other programs: the outbox, kept bounded, and the webhooks that post its events.

Promises: a webhook gets each event at least once, signed and under the same id each time, in order for each job and device. An
event is delivered, or set aside for `shardd webhook retry`, or counted as missed when it was deleted first.

States of a webhook: held by one node (an epoch in its row) or free; delivering, backing off, or disabled after a 410.

How it fails: a receiver that is down costs only its own webhook. After a crash, or when another node takes over, events since the
last save are posted again.

Never: lets a receiver or a forgotten transaction hold up the sending of messages, or follows a redirect.
"""
