"""Messages, and the people at their other end.

What is sent (`outgoing`), who can read it (`copies`), what answers mean (`failures`), what people write back (`incoming`), and
what is known about those who are written to (`recipients`).

Only `failures` interprets the library's events and error texts; an unknown text proves nothing, so the message is in doubt.
"""
