"""Resize to known sizes in its forms, on values that are no ramp (a ramp hides wrong borders)."""

from __future__ import annotations

import pytest

from tests.converters.tflite_ops import agrees, floats

COORDINATES = ["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"]
FORMS = [
    'mode="linear"',
    'mode="linear",antialias=1',
    'mode="cubic"',
    'mode="cubic",antialias=1',
    'mode="cubic",exclude_outside=1',
    'mode="cubic",antialias=1,exclude_outside=1',
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_resized_values_at_the_borders_too(form: str, coordinates: str) -> None:
    x = floats(1, 2, 4, 5)
    for height, width in ((3, 3), (2, 5), (7, 9), (4, 4)):
        graph = f"g (float[1,2,4,5] x) => (float[] y) <int64[4] s = {{1, 2, {height}, {width}}}>"
        mode = f'{form},coordinate_transformation_mode="{coordinates}"'
        agrees(f"{graph} {{ y = Resize<{mode}>(x, , , s) }}", {"x": x}, rtol=1e-4, atol=1e-5)
