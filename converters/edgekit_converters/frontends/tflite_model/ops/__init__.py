"""TFLite ops, one family a file; each takes the graph and an op and puts the op's outputs."""
