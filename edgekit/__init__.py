"""Edgekit's core: the words every part shares. Standard library only; imports no part."""

__version__ = "0.1.0"
