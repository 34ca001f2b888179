"""Nodes that show maps: Attribution Map, Point Attribution, Correspondence, Attribution Viewer."""
