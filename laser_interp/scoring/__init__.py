"""Scores: facts and edits in, one tidy row for each fact, prompt and edit out."""
