"""Reads ``config.pbtxt`` files with Triton's own protobuf. Runs in the sidecar's Python.

``python parse.py FILE…`` prints one JSON list: for each file the message as an object (fields by their
proto names, 64-bit integers as text), or ``{"error": line and reason}``.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Parse the files named on the command line."""
    config = importlib.import_module("tritonclient.grpc.model_config_pb2")
    print(json.dumps([_parsed(config.ModelConfig(), path) for path in sys.argv[1:]]))


def _parsed(message: Any, path: str) -> Any:
    text_format = importlib.import_module("google.protobuf.text_format")
    json_format = importlib.import_module("google.protobuf.json_format")
    try:
        text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except text_format.ParseError as error:
        return {"error": str(error)}
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


if __name__ == "__main__":
    main()
