"""What capture costs: the benchmark of `dev.py bench`."""
