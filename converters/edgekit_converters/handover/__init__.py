"""Handing a variant over to an app: artifact, constants, a wrapper, and vectors for the app's own test."""
