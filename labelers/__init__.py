"""Labelers: how a generator's activations become masks and uncertainty."""
