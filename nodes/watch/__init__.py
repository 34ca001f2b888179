"""Nodes that record: Capture Attention, Collect Attribution, Save and Load Attribution."""
