"""The session store: the library's tables with the keys of every paired device.

`dsn` names it for psycopg and for the library, `setup` creates it, `store` reads it, `importing` adopts sessions of other
programs. Losing a committed row means reused message keys, so it is always written synchronously.
"""
