"""The server's behaviour: login, pairing, messages, directory and file storage."""
