"""How devices send: one module or package per transport.

Promise: a worker hands a job to `prepare` and `deliver` of the device's `Transport` (`base`), and gets proof that it was
sent, proof that it was not, or `InDoubtError`. A transport owns the clients of its devices; it knows neither the queue nor
the journal. It is defined in `shardd.config.transports` and loaded by a worker that has such devices.

Failures: every error is a `shardd.errors.SendError`. What must never happen: a message that leaves in `prepare`, a claim
without proof after `deliver` has begun, a secret in an error's text.
"""
