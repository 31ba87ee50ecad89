-- Where unqualified names lead in this connection, and whether any schema on that path is there.
SELECT current_setting('search_path') AS search_path, current_schema() AS current_schema
