"""What leaves a worker for WhatsApp passes here: a CONNECT proxy on the loopback interface, in the worker's own event loop.

The library hides its sockets, takes no deadline, reconnects without being asked and cannot be stopped while it dials. Owning
its connections gives all of that: the gate (`gate`) knows each client object by a credential of its own, routes it through
its upstream proxy (`upstream`), records when the server was last heard, and can cut it off. `relay` moves
the bytes.

An `Egress`, one client object's account, is first open: it may dial its main host `dials` times. Sealed, once the client is
logged in, it may not dial it again, so nothing reconnects in the background. It is lost when the connection to the main host
is gone and no dial is left; `on_lost` reports that once. Blocked, nothing of the client leaves any more. Killed, it has no
connections and its credential is void.

Failures: a dial that fails or exceeds the deadline is answered with a status of HTTP and kept as `dial_error`. What must
never happen: bytes of one client on another's connection, a connection that outlives `kill`, a password in a text.
"""
