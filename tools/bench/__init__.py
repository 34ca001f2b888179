"""What does capture cost? The benchmark of `dev.py bench`."""
