"""`shardd device`: the sending accounts."""
