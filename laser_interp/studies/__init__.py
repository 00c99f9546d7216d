"""The study: everything that the paper asks, of any model and any facts."""
