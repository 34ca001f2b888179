"""Nodes that answer: Reference Influence, IMACS, Compare Attributions, and the truth test."""
