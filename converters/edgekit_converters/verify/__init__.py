"""Verification: a variant's outputs against the source's on the same inputs. Pure functions of arrays."""
