"""The digits example: a small CNN on real data."""
