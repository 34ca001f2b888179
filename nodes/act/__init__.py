"""Nodes that act on a map: masks, boxes, the best of several, Reference Strength."""
