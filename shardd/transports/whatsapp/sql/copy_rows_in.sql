-- The same rows, into our table of that name.
COPY {table} ({columns}) FROM STDIN (FORMAT binary)
