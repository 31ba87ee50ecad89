"""The command line, one package or module for each noun; `main` is the entry, and imports a noun when it is used.

The daemon need not run, except for `stop`, `reload`, `drain`, `restart` and `status`: the other commands talk to the database.

It promises: each command reports what it could not do, and ends with an exit code of sysexits.h. A command that changes many
things may be repeated. JSON fields are added, never renamed.

How it fails: every error is one line on stderr that names the value and the fix. A command that needs only the daemon or the
database works with a config file that has errors elsewhere, and warns.

It must never print text of strangers unescaped (`output`), show a password, or act on a question that was not answered with yes.

Shared by all nouns: `options` and `names` (input), `listing`, `output`, `words`, `control` and `node` (the daemon), `database`.
"""
