"""Types and shapes on every value, as far as onnx's inference and data propagation know them."""

from __future__ import annotations

import logging

import onnx_ir as ir
from onnx_ir.passes import PassResult
from onnx_ir.passes.common import ShapeInferencePass

from edgekit_converters.hub.passes.base import Pass


class InferShapes(Pass):
    """Infer over the whole graph. Big weights stay out of the serialised copy it is done on."""

    def call(self, model: ir.Model) -> PassResult:
        # The library reports a graph that inference does not follow as a warning with a traceback.
        logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            found = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        finally:
            logger.setLevel(level)
        return PassResult(model, found.modified)
