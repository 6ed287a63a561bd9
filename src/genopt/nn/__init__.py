"""Plain torch parts: encoders, heads and velocity networks. No Lightning, no data, no configuration."""
