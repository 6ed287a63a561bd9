"""Launchers: how the jobs of a sweep are started, here and elsewhere."""
