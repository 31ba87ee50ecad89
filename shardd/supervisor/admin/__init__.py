"""What operators see and request: the control API, the status, the metrics, and the reports to systemd.

Promises: whatever cannot make progress although it should is a `Problem` (shardd.supervisor.problems) in the status and in the
metrics within 30 seconds. Status and metrics are made from the same data.

States of a node: starting, running, stopping.

How it fails: a control socket that was deleted or replaced is created again; until then that is a problem, and signals still
work. A request that fails costs only itself.

Never: does the work itself (it calls the part that owns it), or shows text that others chose without escaping it.
"""
