"""`shardd status`: the health of a node, once or as a live picture."""
