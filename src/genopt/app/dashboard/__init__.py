"""The local dashboard: folders of studies to one table and one page that needs no network."""
