"""`shardd job`: what became of messages."""
