"""From a claim to its settlement: the only code of a node that claims jobs and stores their outcomes.

Promises: a job is handed to a worker only after its claim is committed, under a lease that is good at that moment. It is settled
once, with its known outcome; what cannot be known is `in_doubt`.

States of a claim: in flight (a worker has it), ended (its outcome waits to be stored), refused (the database does not accept
the outcome; retried periodically), settled. `InFlight` has them until they are settled.

How it fails: while the database does not answer, outcomes wait here and in the journals, and nothing is claimed. After a crash
`Recovery` settles from the journals what the previous process left behind, and resolves what other nodes called in doubt
meanwhile; `verdicts` decides what a journal proves.

Never: starts or stops a worker, retries a job that may have been sent, or lets one refused row block the others.
"""
