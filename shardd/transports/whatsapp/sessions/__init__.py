"""The store of WhatsApp sessions: where it is, how it is made ready, what it holds."""
