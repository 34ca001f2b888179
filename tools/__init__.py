"""Everything that makes, measures and checks the pack. Nothing here is needed to use it."""
