"""Decision trees of every library in one form, and that form as plain tensor ops.

`ensemble` is the form, `plain` writes it as ONNX; `from_sklearn`, `from_xgboost` and `from_lightgbm`
read the libraries' own models, and `ml_ops.tree_ensemble` the ONNX-ML ops.

What is equal to the source: every sample reaches the same leaf of every tree (thresholds are rounded
so that the decision on float32 inputs is the source's, denormal inputs count as zero), and the sum of
the leaves is either the source's own float32 sum, bit by bit, or the exact sum rounded to float32.
"""
