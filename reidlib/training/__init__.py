"""Optimises a model; knows nothing of re-identification."""
