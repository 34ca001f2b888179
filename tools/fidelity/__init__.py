"""Does the map tell the truth? The studies behind docs/fidelity.md."""
