"""The worker process: one per shard, with the clients of the shard's devices and the shard's journal.

Promises: the journal has `started` before a message is handed over, and its outcome before it is reported; at most one job per
device is in flight, unless its transport allows more; every job ends with one outcome.

States: waits for its setup, runs, drains, ends. It drains when its supervisor requests it or is gone, when the
lease runs out, and at SIGTERM.

How it fails: an exception of a transport costs one job; a message that cannot be decoded costs only what it carried; a journal
that takes no entries stops the sending; anything else ends the process, and the supervisor settles its claims from the journal.

Never: claims jobs, opens the queue's tables, or decides what becomes of a job.
"""
