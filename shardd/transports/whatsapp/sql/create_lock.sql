-- What whoever makes the store's tables locks; it holds nothing.
CREATE TABLE IF NOT EXISTS shardd_setup ()
