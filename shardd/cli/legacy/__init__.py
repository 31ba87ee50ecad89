"""`shardd import legacy`: taking over from the system that shardd replaces."""
