"""A SignatureDef for a file that has none: the same graph and weights, with names for its ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit_converters.frontends.tflite_model.reader import read

KEY = "serving_default"


def with_signature(data: bytes, names: Mapping[str, str], where: str) -> bytes:
    """`data` itself if it has a signature, else the file with one.

    Args:
        data: a TFLite file.
        names: the file's own port names → the names to be written; what is left out keeps its name.
        where: for errors.

    Raises:
        SourceError: not a whole TFLite file.
    """
    file = read(data, where)
    if file.signed:
        return data
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = KEY, 0
    made.inputs = [_entry(schema, names.get(name, name), index) for name, index in file.inputs.items()]
    made.outputs = [_entry(schema, names.get(name, name), index) for name, index in file.outputs.items()]
    model.signatureDefs = [made]
    builder = flatbuffers.Builder(len(data) + 4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _entry(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
