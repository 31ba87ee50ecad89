"""`shardd opt-out`: recipients that nothing is sent to. Opt-outs are only added, never changed or removed."""
