"""The embedded PostgreSQL: when the config names no database, shardd runs one of its own in the state folder.

**Promises.** It is created on first use, started and stopped with the daemon, and started again when it dies. Data that was once
created is never overwritten: an interrupted creation leaves nothing behind, and programs of another major version are refused.

**Who can connect.** The server listens on one UNIX socket, in a folder of mode 0700, and on no network. `peer` authentication
asks the kernel who is at the other end of the socket, and a map admits root and the user that shardd runs as, as any of the
roles `shardd` (the daemon), `producer` (inserts jobs, reads outcomes), `inbox` (a producer that reads incoming messages, too) and
`postgres` (superuser); the account that the server runs as is admitted as `shardd`, for a PgBouncer (`shardd.pgbouncer`). With
`trust`, another program
of the account that runs the server (`nobody` often runs several) could log in as superuser; a password would have to lie in a
file beside the data, readable by the same people that `peer` admits. So a producer on the same machine runs as the daemon's
user or as root; anything else needs a real server.

**Who owns the process.** The server is a child of shardd, never a daemon: when shardd is killed, the kernel interrupts the
server, which then shuts down cleanly (`launch`). A lock (`STATE_DIR/pg.lock`) marks the parent, so a server that runs on the
data while we hold the lock is an orphan about to end: it is asked to stop, and waited for.

**As root.** PostgreSQL refuses to run as root, so it runs as another account (`home`). Root never opens a file for writing in a
folder that another account owns, and never widens the mode of a folder above the state folder.

**Failures.** DatabaseError with the fix where it cannot run; AlreadyRunningError while another process runs it.
"""

from shardd.embedded.server import EmbeddedPostgres, embedded_dsn, is_others, is_up, others_dsn

__all__ = ["EmbeddedPostgres", "embedded_dsn", "is_others", "is_up", "others_dsn"]
