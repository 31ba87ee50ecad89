"""The worker processes: one per shard whose lease this node holds.

Promises: a shard has at most one worker; a new one starts only after everything that the previous one had in flight is
settled; a worker that hangs, grows beyond its budget or loses its lease is replaced or killed.

States of a shard: see `shardd.states.SHARD_TRANSITIONS`. `WorkerPool` drives them, `Shard` keeps one shard's state, and
`WorkerProcess` is one child process: spawn, channel, heartbeat, exit.

How it fails: a worker that dies is started again after a backoff; a shard whose workers keep dying is `broken` and probed
now and then. A worker whose deaths follow one job is not the shard's fault: see `shardd.worker.start_gate`.

Never: decides what became of a job (that is `dispatch`), or lets a message that cannot be read cost more than itself.
"""
