"""Loggers of studies and sweeps."""
