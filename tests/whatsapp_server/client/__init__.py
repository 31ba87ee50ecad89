"""Client processes: plain neonize under the control of a test, and what makes any Python process trust the server."""
