"""The same work on one process, several, or a Ray cluster."""
