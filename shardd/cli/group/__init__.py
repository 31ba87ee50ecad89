"""`shardd group`: devices that share jobs."""
