"""What the benchmarks share: servers of their own, load, peers, and how results are told."""
