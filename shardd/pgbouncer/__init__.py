"""A PgBouncer that shardd runs itself, for the sessions of WhatsApp devices.

The WhatsApp library keeps up to two connections to PostgreSQL for each open client. In transaction mode, PgBouncer serves any
number of them with a few.

**Promises.** It listens on one UNIX socket, in a folder of mode 0700 that belongs to the account it runs as, and on no network.
It connects to one server, the one that `Target` names, and to no other: PgBouncer itself does not distinguish a primary from a
standby. Its server connections have the settings that the target lists, which clients cannot set.

**Who owns the process.** It is a child of shardd, never a daemon, and ends with it (`shardd.embedded.launch`). What an earlier
run left listening on the socket is ended by the next start.

**As root.** PgBouncer refuses to run as root, so it runs as the account that the embedded PostgreSQL has or would have, in a
folder below /run.

**Failures.** PgBouncerError with the cause: the program is missing or too old, it ends, does not answer, or the target has a
parameter that it does not support.

**Never:** a password in a command line or an error, and no client of another account.
"""

from shardd.pgbouncer.errors import NotInstalledError, PgBouncerError
from shardd.pgbouncer.ini import Target
from shardd.pgbouncer.process import PgBouncer
from shardd.pgbouncer.program import Program, find_program

__all__ = ["NotInstalledError", "PgBouncer", "PgBouncerError", "Program", "Target", "find_program"]
