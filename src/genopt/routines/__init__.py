"""Routines: from a goal to Candidates."""
