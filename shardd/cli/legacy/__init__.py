"""`shardd import legacy`: import from the system that shardd replaces. It may be repeated, and never imports a message twice."""
