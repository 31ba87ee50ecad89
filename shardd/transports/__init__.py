"""How a device sends: one module or package per transport."""
