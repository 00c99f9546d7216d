"""Facts: what a model is asked, what counts as right, and how often training showed it."""
