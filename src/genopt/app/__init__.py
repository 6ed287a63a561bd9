"""The Hydra app: one study, many studies."""
