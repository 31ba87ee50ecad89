"""What `scripts/bench` measures, and how. Each measurement starts what it needs and ends it."""
