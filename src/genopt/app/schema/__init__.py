"""The types of our configuration groups."""
