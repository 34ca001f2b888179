"""The demo: its scenes, models and trainings, and the run of `dev.py demo`."""
