"""Installs the service: the files that systemd and the shells need, the user, a first config.

Promise: what belongs to shardd is as this version needs it, and what belongs to the operator (config, environment file, drop-ins)
is never changed. Everything is checked before anything is written; a repetition changes nothing. Files are written whole or not
at all.

`files` says what belongs where, `shells` how they complete, `program` which program the unit starts, `install` compares, writes
and removes.

States: a file is new, to be replaced, unchanged, or the operator's.
Failures: `UsageError` with every reason at once: not root, no systemd, somebody else's file in a place of ours, a program that
the service's user cannot run. Never: a service is started, stopped or restarted.
"""
