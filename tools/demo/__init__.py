"""The demo: its scenes, its models and how they are trained, and the run of `dev.py demo`."""
