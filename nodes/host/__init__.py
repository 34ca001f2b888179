"""The files that touch a running model: they watch its attention, steer it and tell the page."""
