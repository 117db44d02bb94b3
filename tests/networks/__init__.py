"""Whole networks, in flax linen, in flax nnx and as plain functions, under every method."""
