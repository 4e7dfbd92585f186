"""Edgekit fleet."""
