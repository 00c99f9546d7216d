"""Check that this package computes the right numbers on your model, your device and your dtype."""
