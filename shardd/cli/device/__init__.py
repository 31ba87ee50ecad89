"""`shardd device`: the sending accounts.

`commands` changes rows of shardd.devices, `show` shows them; `session`, `pair` and `adopt` (device import) deal with sessions.
A session belongs to one device at any moment: it is bound and unbound by one conditional UPDATE, also while a
daemon runs, and one that cannot be bound is unlinked again.
"""
