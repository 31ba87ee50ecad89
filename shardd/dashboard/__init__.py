"""The web page for operators: a process of its own, which the supervisor starts and watches.

**Promises.** It shows what the database and this node's control socket know, and nothing else. What it does, it does by the same
calls as the commands. No password, no browser and no attack on it touches leases, routing or the watchdog: it has database
connections of its own, and the supervisor goes on without it.

**States** of a browser: unknown, signed in. A sign-in ends by signing out, after a time without a request, and with this process.

**Failures.** When the database or the supervisor does not answer, a page says so in words, and shows the rest.

**Never:** a request to another host, a script or style inside a page, a page without a sign-in except those that sign in.
"""
