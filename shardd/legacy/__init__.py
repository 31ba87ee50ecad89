"""Reads the system that shardd replaces, from its database or from a dump, and converts its rows.

`old_system` opens a PostgreSQL or MySQL database or a dump file; each yields the same rows as text. `devices` and `messages`
convert rows or refuse them, `spool` sorts the messages on disk, and `report` counts everything. Nothing is written here: the
command `shardd import legacy` inserts the result through `queue.imports`.

An import can be repeated: rows that were imported before stay as they are. Every row is counted: imported, refused with a reason,
or in doubt. A message that may have been sent is never imported, and neither are those after it in its order group.
Memory does not grow with the number of messages.
"""
