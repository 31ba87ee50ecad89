"""shardd keeps thousands of WhatsApp devices sending, and tells the truth about every message."""

__version__ = "0.1.0"
