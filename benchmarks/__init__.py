"""Measurements behind every figure in the documents. Run them with ``make bench``."""
