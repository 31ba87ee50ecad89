"""Clients of the library: at most one per device, opened when a job needs it.

A client object is new, opening, open, closing, closed, and never used again; a refresh makes another. `pool` answers
`get_or_refresh` with a healthy one (heard lately, or probed, or rebuilt under the device's lock). `closing` chooses which are
closed: idle ones, later while a message is undelivered (`recent`), which only the client that sent it can encrypt again. `visits`
hear what waited after each login, and open devices that have nothing to send; `presence` shows a device to WhatsApp. `client` is
one object's life, `receipts` what becomes of its messages, `draining` its end without a loss, `slot` a device's place in the
pool. `lookups` asks for what a message needs before it is handed over. `library` makes neonize fit for a daemon.

Failures: a client that failed carries a `messages.failures.Failure`, raised as `ClientFailedError`. What must never happen: two
clients of one device, a message to a person that leaves without a copy for any of their devices, a connect of a session without
a row (it ends the process), an await on the library without a deadline.
"""
