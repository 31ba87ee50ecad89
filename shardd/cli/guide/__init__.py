"""`shardd guide`: the pages of `shardd/guide`, which the installed package contains, on the terminal.

`library` finds pages, `page_view` draws one. Needs neither a config nor a daemon.
"""
