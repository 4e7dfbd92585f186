"""Quantization: one calibration of the float hub, and what is derived from it.

`pipeline.for_target` is the door; `calibration.calibrate` makes the file it reads.
"""
