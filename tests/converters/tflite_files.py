"""Running lowered files in LiteRT with both kernel sets, integers at the ports included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from edgekit_converters import hub
from edgekit_converters.targets.tflite.lower import SUPPORTED, Lowered, Options, Port, lower
from tests.converters.graphs import Array, GraphBuilder

Build = Callable[[GraphBuilder], str]
"""Appends nodes and names the output."""


def model_of(build: Build, shape: tuple[int, ...], batch: int | str = "N") -> onnx.ModelProto:
    """What `build` appends to an input of `shape`, as a model."""
    graph = GraphBuilder(shape, seed=3, batch=batch)
    model = graph.model(build(graph), [], opset=21)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def compiled(model: onnx.ModelProto, **options: Any) -> Lowered:
    """The product's way from ONNX to a file in memory."""
    legal = hub.legalise(hub.canonical(model).model, SUPPORTED)
    return lower(legal, options=Options(**options))


def reference(model: onnx.ModelProto, feed: Array) -> Array:
    """onnxruntime's answer; the graph as it is written."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {session.get_inputs()[0].name: feed})[0]
    return found


def answers(file: Lowered, feed: Array) -> Mapping[str, Array]:
    """The answer of each kernel set to one batch."""
    return {name: _run(file, feed, resolver) for name, resolver in _RESOLVERS.items()}


_RESOLVERS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


def _run(file: Lowered, feed: Array, resolver: OpResolverType) -> Array:
    machine = Interpreter(model_content=file.data, num_threads=1, experimental_op_resolver_type=resolver)
    runner = machine.get_signature_runner()
    found = runner(**{file.inputs[0].name: to_integers(feed, file.inputs[0])})
    return to_reals(found[file.outputs[0].name], file.outputs[0])


def to_integers(values: Array, port: Port) -> Array:
    """What the port wants."""
    if port.quant is None:
        return values
    kind = np.dtype(port.dtype.numpy())
    limits = np.iinfo(kind)
    whole = np.rint(values.astype(np.float64) / port.quant.scale[0]) + port.quant.zero_point[0]
    return np.clip(whole, limits.min, limits.max).astype(kind)


def to_reals(values: Array, port: Port) -> Array:
    """What the port means."""
    if port.quant is None:
        return values
    return (values.astype(np.float64) - port.quant.zero_point[0]) * port.quant.scale[0]


def random(*shape: int, seed: int = 0) -> Array:
    """Normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agree(build: Build, shape: tuple[int, ...], *, batch: int = 2, rtol: float = 2e-5) -> Lowered:
    """Fail unless both kernel sets give what onnxruntime gives."""
    model = model_of(build, shape, batch)
    feed = random(batch, *shape)
    wanted, file = reference(model, feed), compiled(model)
    for name, found in answers(file, feed).items():
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=2e-5, err_msg=name)
    return file
