"""Nodes that measure: Reference Influence, IMACS, Compare Attributions, and the truth test."""
