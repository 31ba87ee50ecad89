"""The pages, one module for each: its routes, what it reads, and what can be done on it."""
