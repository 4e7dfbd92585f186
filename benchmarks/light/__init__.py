"""The nine classic networks of the `onnx` wheel, whose weights are made while the graph runs."""
