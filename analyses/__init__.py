"""One file a question of the paper. Each runs as `python -m analyses NAME` or `laser-interp analyse NAME`."""
