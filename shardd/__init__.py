"""shardd keeps thousands of WhatsApp devices sending, and tells the truth about every message."""
