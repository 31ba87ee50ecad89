"""The supervisor: one per host; it owns the leases, the worker processes and the queue, and answers the control socket.

Promises: a shard is served by one node at a time, and every claim of it is settled once, whatever dies. What cannot proceed is
reported in `status` within 30 seconds.

States: starting (`takeover`), running, stopping (drain, settle, give the leases back).

How it fails: a step that fails is retried and reported; a service with a defect stops the daemon in order, and systemd starts it
again; after kill -9 the workers drain by themselves, and the journals decide.

Never: opens a device's client, or claims under a lease that may have ended.
"""
