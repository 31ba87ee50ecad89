"""shardd keeps thousands of WhatsApp devices sending, and tells the truth about every message."""

from typing import Final

__version__: Final = "0.1.0"
