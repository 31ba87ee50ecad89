"""One per host: owns the leases, the worker processes and the queue, and answers the control socket."""
