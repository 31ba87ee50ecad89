"""The worker processes: one per shard whose lease this node holds.

Promises: a shard has at most one worker; a new one starts only after everything that the previous one had in flight is
settled; a worker that hangs, grows beyond its budget or loses its lease is replaced or killed.

States of a shard: see `shardd.states.SHARD_TRANSITIONS`. `WorkerPool` drives them, `Shard` keeps one shard's state,
`WorkerProcess` is one child process, `WorkerMessages` handles its messages, and `Deaths` follows up on its end.

How it fails: a worker that dies is started again after a backoff; a shard whose workers keep dying is `broken`, and probed
periodically. Deaths that a known job causes do not count against the shard: see `shardd.worker.start_gate`.

Never: decides what became of a job (that is `dispatch`), or lets a message that cannot be decoded cost more than itself.
"""
