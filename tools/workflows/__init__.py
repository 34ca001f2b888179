"""The example workflows: what is in them, how they are made, and their API prompts."""
