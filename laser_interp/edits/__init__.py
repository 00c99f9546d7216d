"""Edits: gains on the singular directions of weights."""
