"""Edgekit converters: one source model into verified variants per hardware profile.

source ─frontends→ ONNX hub ─quantize→ ─targets→ artifact ─verify→ verdict ─engine→ package, report.
Everything foreign (TensorFlow, coremltools, the runtimes) runs in worker processes; importing this
package loads none of it.
"""
