"""Is what this package computes right on your model, your device and your dtype?"""
