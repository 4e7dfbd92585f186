"""Edgekit agent."""
