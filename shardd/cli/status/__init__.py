"""`shardd status`: the health of a node."""
