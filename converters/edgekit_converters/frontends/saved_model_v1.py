"""SavedModels that only TensorFlow 1's loader takes: a graph, a session, and a signature by names.

Specification: `tf.compat.v1.saved_model`. Files written by TensorFlow 1, and by early versions of 2
whose objects newer ones cannot build again. Imported in TensorFlow workers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import SourceError
from edgekit_converters.frontends.tensorflow_common import OPSET, port
from edgekit_converters.frontends.tf_mends import mend
from edgekit_converters.values import Signature

_BATCH = 64


class GraphModel:
    """A loaded graph with its session; ports by the signature's names."""

    def __init__(self, session: Any, info: Any, where: str, framework: str) -> None:
        self._session = session
        self._feeds = {name: item.name for name, item in sorted(info.inputs.items())}
        self._fetches = {name: item.name for name, item in sorted(info.outputs.items())}
        self.signature = Signature(
            inputs=tuple(_port(name, info.inputs[name], where) for name in self._feeds),
            outputs=tuple(_port(name, info.outputs[name], where) for name in self._fetches),
            framework=framework,
            activation=_activation(session.graph, next(iter(self._fetches.values()))),
        )

    def export(self, path: Path) -> Mapping[str, str]:
        """See `Loaded.export`."""
        import tensorflow as tf
        import tf2onnx

        names = [name.partition(":")[0] for name in self._fetches.values()]
        with self._session.graph.as_default():
            frozen = tf.compat.v1.graph_util.convert_variables_to_constants(
                self._session, self._session.graph.as_graph_def(), names
            )
        model, _ = tf2onnx.convert.from_graph_def(
            frozen,
            input_names=list(self._feeds.values()),
            output_names=list(self._fetches.values()),
            opset=OPSET,
        )
        mend(model, where=str(path.name))
        path.write_bytes(model.SerializeToString(deterministic=True))
        return {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Loaded.run`."""
        n = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, n, _BATCH):
            fed = {tensor: inputs[name][start : start + _BATCH] for name, tensor in self._feeds.items()}
            parts.append(self._session.run(list(self._fetches.values()), fed))
        columns = zip(*parts, strict=True)
        return dict(zip(self._fetches, (np.concatenate(column) for column in columns), strict=True))


def load(path: Path) -> GraphModel:
    """Load the graph of the tag ``serve`` (else the only one) and its serving signature.

    Raises:
        SourceError: damaged, or without a signature to serve.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    where = str(path)
    graph = tf.Graph()
    try:
        with graph.as_default():
            session = tf.compat.v1.Session(graph=graph)
            loaded = tf.compat.v1.saved_model.load(session, _tags(path), where)
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
        DecodeError,
        tf.errors.OpError,
    ) as error:
        text = " ".join(str(error).split())[:300]
        raise SourceError(
            f"TensorFlow cannot load it: {text}",
            where=where,
            remedy="the folder is damaged or not whole: saved_model.pb and variables/ belong together",
            code="corrupt_source",
        ) from error
    known = {name: item for name, item in loaded.signature_def.items() if item.inputs and item.outputs}
    chosen = next((known[name] for name in ("serving_default", "serve") if name in known), None)
    if chosen is None and len(known) == 1:
        chosen = next(iter(known.values()))
    if chosen is None:
        raise SourceError(
            f"no signature to serve among {sorted(known)}",
            where=where,
            remedy="export with a signature called serving_default",
            code="no_signature",
        )
    framework = f"tensorflow {loaded.meta_info_def.tensorflow_version}".strip()
    return GraphModel(session, chosen, where, framework)


def _tags(path: Path) -> list[str]:
    from tensorflow.core.protobuf import saved_model_pb2

    found = saved_model_pb2.SavedModel()
    found.ParseFromString((path / "saved_model.pb").read_bytes())
    graphs = [list(item.meta_info_def.tags) for item in found.meta_graphs]
    if not graphs:
        raise ValueError("saved_model.pb holds no graph")
    return next((tags for tags in graphs if tags == ["serve"]), graphs[0])


def _port(name: str, info: Any, where: str) -> Any:
    import tensorflow as tf

    shape = info.tensor_shape
    if shape.unknown_rank or not info.name:
        raise SourceError(
            f"{name!r} has no shape, or is no plain tensor",
            where=where,
            remedy="export a signature with shapes",
            code="unsupported_source",
        )
    dtype = tf.dtypes.as_dtype(info.dtype)
    if dtype == tf.string:
        raise SourceError(
            f"{name!r} holds strings",
            where=where,
            remedy="export a signature that takes and gives numbers",
            code="unsupported_type",
        )
    sizes = [None if item.size < 0 else item.size for item in shape.dim]
    return port(name, dtype.as_numpy_dtype, sizes, where)


def _activation(graph: Any, fetched: str) -> str:
    """The kind of the op that gives the first output; hidden when the graph is one call of a function."""
    op = graph.get_tensor_by_name(fetched).op
    while op.type == "Identity":
        op = op.inputs[0].op
    if op.type == "StatefulPartitionedCall":
        name = op.get_attr("f").name
        nodes = next(
            (f.node_def for f in graph.as_graph_def().library.function if f.signature.name == name), ()
        )
        kinds = [node.op for node in nodes if node.op not in ("Identity", "NoOp")]
        kind = next(
            (k for k in reversed(kinds) if k in ("Softmax", "Sigmoid", "StatefulPartitionedCall")), ""
        )
        if kind == "StatefulPartitionedCall":
            kind = _only_activation(graph)
    else:
        kind = op.type
    return kind.lower() if kind in ("Softmax", "Sigmoid") else "none"


def _only_activation(graph: Any) -> str:
    """Softmax or Sigmoid if the functions of the graph have just the one kind."""
    kinds = {n.op for f in graph.as_graph_def().library.function for n in f.node_def}
    found = kinds & {"Softmax", "Sigmoid"}
    return found.pop() if len(found) == 1 else ""
