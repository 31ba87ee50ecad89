"""`shardd campaign`: jobs that are counted, paused, resumed and cancelled together."""
