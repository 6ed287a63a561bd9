"""Data: sampling designs, tables of measurements and the batches that training reads."""
