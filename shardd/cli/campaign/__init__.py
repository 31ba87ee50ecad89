"""`shardd campaign`: jobs that are counted, paused, resumed and cancelled together. A cancelled campaign is final."""
