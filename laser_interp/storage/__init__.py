"""Results on disk: tidy tables that say where they come from, and run folders that can be resumed."""
