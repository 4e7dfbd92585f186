"""Passes over the model: one a file, each with what it requires and ensures."""
