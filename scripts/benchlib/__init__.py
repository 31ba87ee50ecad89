"""The benchmarks of `scripts/bench`. Each starts the servers that it needs and stops them."""
