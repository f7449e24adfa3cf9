"""Speed, memory and size, each measured beside a peer in the same run: `python -m benchmarks`."""
