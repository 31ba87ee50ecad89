"""Keys and encryption: X25519 and XEdDSA, Signal sessions and sender keys, link codes, and the PKI that clients trust."""
