"""Edgekit converters."""
