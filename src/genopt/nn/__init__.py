"""Plain torch parts: encoders, heads, velocity networks. No Lightning, no data."""
