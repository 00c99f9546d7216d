"""The model organism: a tiny transformer in which LASER's effect appears from training alone.

Two checkpoints ship with the package: `organism`, and `organism-control`, trained without generic continuations and
stopped early, on which LASER must gain nothing.
"""
