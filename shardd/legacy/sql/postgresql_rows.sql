-- Its rows; every column is cast to text.
SELECT {columns} FROM {table}
