"""The example workflows: how they are built, checked and written."""
