"""`shardd producer`: which logins may insert which jobs."""
