"""Do the maps tell the truth? The studies behind docs/fidelity.md."""
