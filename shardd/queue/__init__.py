"""The database: jobs, devices, campaigns, groups, opt-outs, events, leases, and the connections to it.

**Promise.** A job is claimed by one node at a time, under the epoch of a lease that the database's own clock says is valid. A
settlement applies only to the row's current claim (id, epoch, attempt, token), so settling twice is harmless. A job's end and the
event that reports it are written in one transaction. What producers insert is checked by the tables' triggers, and refused with
the column, the value and the fix.

**States.** `shardd.states` has the transitions of jobs and devices. Jobs: scheduled, queued and sending ones are rows of
`shardd.jobs`, finished ones of `shardd.archive`; an `UPDATE` claims and releases, moving the row finishes it. Devices: triggers
and statements refuse a change that is not in the table. `columns.py` has the columns, once; statements are filled in from it.

**Failures.** Every wait has a deadline; every call raises `DatabaseError`, `RefusedDataError` for data that the server rejects,
or `BlockedError` for a lock that another session holds. After an error, a transaction may have happened or not: callers ask
(`Jobs.live_claims`) before they claim again. Notifications are hints: whoever listens also polls.

**Never.** No statement outside of `sql/` and `migrations/`. No advisory lock that correctness depends on: any login can take one.
No claim by a node whose lease has expired. No update or deletion of opt-outs, and none of events but by retention.

Each module is one noun and has a class for the daemon (`Jobs`) and one for the operator's commands (`JobAdmin`). Rows are read by
the names of their columns.
"""
