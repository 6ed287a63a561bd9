"""Models: what is learned. Each one is usable alone, without Hydra."""
