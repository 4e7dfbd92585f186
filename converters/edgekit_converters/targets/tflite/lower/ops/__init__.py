"""One module a family of ops; each function lowers one ONNX node exactly or raises `Refusal`."""
