"""Names that the parts of this target share."""

from __future__ import annotations

FILE = "model.tflite"
PACKAGE = "tflite-micro"
ROOT = "TFLM_ROOT"
"""Environment variable that names a checkout of TFLM's own sources."""
