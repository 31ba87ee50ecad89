-- Its rows; names are quoted by the caller.
SELECT {columns} FROM {table}
