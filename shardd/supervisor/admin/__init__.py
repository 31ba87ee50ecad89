"""What operators see and ask for: the control API, the status and the metrics.

Promises: whatever cannot make progress although it should is a `Problem` (shardd.supervisor.problems) in the status and in the
metrics within 30 seconds. Status and metrics are made from the same data.

Never: does the work itself (it calls the part that owns it), or shows text that others chose without escaping it.
"""
