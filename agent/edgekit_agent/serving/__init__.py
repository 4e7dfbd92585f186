"""Serving: the model host, the pipeline around a model, and the ways requests come in."""
