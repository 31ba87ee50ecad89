"""`shardd opt-out`: recipients that nothing is sent to."""
