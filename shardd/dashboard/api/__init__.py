"""The same by JSON: `/api/v1`, for programs with a token.

**Promises.** What a token may is decided in one place, before anything else is looked at. What a sending token inserts and sees
is decided by PostgreSQL, as for the login of a program: each of its transactions is one of its role. Every answer is of the form
that the document says, and the document is made of what serves the requests.

**Failures.** Each is a problem (RFC 9457): a stable type, and a sentence that names field, value and fix.

**Never:** a cookie, a token in an address, an answer that a page of another site can read.
"""
