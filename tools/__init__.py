"""What makes, measures and checks the pack; nothing of it is needed to use it."""
