"""A run as one HTML page to explore, and a panel for notebooks."""
