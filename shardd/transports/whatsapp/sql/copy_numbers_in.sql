-- Into that room.
COPY imported_numbers (lid, pn) FROM STDIN (FORMAT binary)
