"""How much of ONNX arrives right on a target: the node tests of the `onnx` wheel, compiled, run, judged."""
