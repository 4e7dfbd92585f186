"""Quantization: one calibration of the float hub, and what is derived from it."""
