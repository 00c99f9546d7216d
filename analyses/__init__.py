"""One file for each question of the paper. Each runs as `python -m analyses NAME` or `laser-interp analyse NAME`."""
