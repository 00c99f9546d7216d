"""The committed figures, and what draws them again."""
