"""How fast this package is, as ratios measured in one run: `python -m benchmarks NAME`."""
