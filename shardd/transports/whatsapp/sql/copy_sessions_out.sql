-- Rows of one table that belong to these sessions.
COPY (SELECT {columns} FROM {table} WHERE {session_column} = ANY ({sessions})) TO STDOUT (FORMAT binary)
