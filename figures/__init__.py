"""Figures from tables, and nothing else: `python -m figures`."""
