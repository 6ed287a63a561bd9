"""Designs that keep constraints: drawn, selected or searched for, and projected exactly at the end.

`constrained_draws` is what the routines call; the other files hold one idea each.
"""
