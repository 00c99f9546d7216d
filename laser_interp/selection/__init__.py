"""Which edit? Settings, cells, the grid, composition, and the run that scores them."""
