"""Connections to PostgreSQL, as all of shardd needs them: to the primary, with fixed settings, every wait bounded.

**Promises.** `Servers.connect` returns a connection to the primary among the servers of a DSN, with the settings that shardd
relies on (`settings`), whatever the server, the role or the environment says. A deadline ends every wait, also on a frozen
server (`liveness`). A connection knows whether its server is still the primary. Statements come from named `.sql` files
(`sql_files`).

**States** of a connection: *current*; *outdated*, once another server was seen as the primary; *shared*, behind a pooler that
gives each transaction another server connection (`poolers`), where settings hold for one transaction only.

**Failures.** Every error becomes a DatabaseError in one sentence that names the server, the cause and the fix (`errors`,
`refusals`); BlockedError names the session that holds a lock (`lock_watch`).

**Never:** a password in an error, a write to a standby or to a server that another has replaced, an unbounded wait.
"""
