"""Functions of one number, and softmax. Specification: onnx/docs/Operators.md, coremltools' MIL ops.

MIL's default epsilons (`log`, `rsqrt`, `inverse`) change values: they are set to zero or avoided.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # as all of its examples have it

from edgekit_converters.targets.coreml.lower.node import Node, Var, choose, is_float, like
from edgekit_converters.targets.coreml.lower.registry import lowers

_PLAIN: dict[str, Callable[..., Var]] = {
    "Acos": mb.acos,
    "Asin": mb.asin,
    "Atan": mb.atan,
    "Atanh": mb.atanh,
    "Ceil": mb.ceil,
    "Cos": mb.cos,
    "Cosh": mb.cosh,
    "Erf": mb.erf,
    "Exp": mb.exp,
    "Floor": mb.floor,
    "Sigmoid": mb.sigmoid,
    "Sin": mb.sin,
    "Sinh": mb.sinh,
    "Softplus": mb.softplus,
    "Softsign": mb.softsign,
    "Sqrt": mb.sqrt,
    "Tan": mb.tan,
    "Tanh": mb.tanh,
}


@lowers(*_PLAIN)
def _plain(node: Node) -> Var:
    return _PLAIN[node.op](x=node.var(0))


@lowers("Round")
def _round(node: Node) -> Var:
    return round_half_even(node.var(0))


def round_half_even(x: Var) -> Var:
    """What lies between two numbers goes to the even one: with MIL's `round` only on the CPU.

    Chromium's WebNN found that the other compute units round ties another way (crbug.com/439346653).
    """
    below, one, half = mb.floor(x=x), np.float32(1), np.float32(0.5)
    rest, above = mb.sub(x=x, y=below), mb.add(x=below, y=one)
    even = mb.mul(x=mb.floor(x=mb.mul(x=above, y=half)), y=np.float32(2))
    tied = choose(mb.equal(x=rest, y=half), even, below)
    return choose(mb.greater(x=rest, y=half), above, tied)


@lowers("Relu")
def _relu(node: Node) -> Var:
    x = node.var(0)
    return mb.relu(x=x) if is_float(x) else mb.maximum(x=x, y=np.int32(0))


def log(x: Var) -> Var:
    """The logarithm itself: MIL's would add 1e-45 first."""
    return mb.log(x=x, epsilon=np.float32(0))


@lowers("Log")
def _log(node: Node) -> Var:
    return log(node.var(0))


@lowers("Reciprocal")
def _reciprocal(node: Node) -> Var:
    return mb.real_div(x=np.float32(1), y=node.var(0))


@lowers("LeakyRelu")
def _leaky(node: Node) -> Var:
    return mb.leaky_relu(x=node.var(0), alpha=np.float32(node.real("alpha", 0.01)))


@lowers("Elu")
def _elu(node: Node) -> Var:
    return mb.elu(x=node.var(0), alpha=np.float32(node.real("alpha", 1.0)))


@lowers("Selu")
def _selu(node: Node) -> Var:
    alpha = node.real("alpha", 1.67326319217681884765625)
    gamma = node.real("gamma", 1.05070102214813232421875)
    return mb.mul(x=mb.elu(x=node.var(0), alpha=np.float32(alpha)), y=np.float32(gamma))


@lowers("Celu")
def _celu(node: Node) -> Var:
    x, alpha = node.var(0), node.real("alpha", 1.0)
    if alpha <= 0:
        node.refuse(f"alpha {alpha}")
    scaled = mb.real_div(x=mb.minimum(x=x, y=np.float32(0)), y=np.float32(alpha))
    bent = mb.mul(x=mb.sub(x=mb.exp(x=scaled), y=np.float32(1)), y=np.float32(alpha))
    return mb.add(x=mb.maximum(x=x, y=np.float32(0)), y=bent)


@lowers("HardSigmoid")
def _hard_sigmoid(node: Node) -> Var:
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    return mb.sigmoid_hard(x=node.var(0), alpha=np.float32(alpha), beta=np.float32(beta))


@lowers("HardSwish")
def _hard_swish(node: Node) -> Var:
    x = node.var(0)
    return mb.mul(x=x, y=mb.sigmoid_hard(x=x, alpha=np.float32(1 / 6), beta=np.float32(0.5)))


@lowers("Swish")
def _swish(node: Node) -> Var:
    x, alpha = node.var(0), node.real("alpha", 1.0)
    inner = x if alpha == 1 else mb.mul(x=x, y=np.float32(alpha))
    return mb.mul(x=x, y=mb.sigmoid(x=inner))


@lowers("Mish")
def _mish(node: Node) -> Var:
    x = node.var(0)
    return mb.mul(x=x, y=mb.tanh(x=mb.softplus(x=x)))


@lowers("Gelu")
def _gelu(node: Node) -> Var:
    mode = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[node.text("approximate", "none")]
    return mb.gelu(x=node.var(0), mode=mode)


@lowers("ThresholdedRelu")
def _thresholded(node: Node) -> Var:
    """MIL's own op keeps a value that equals the threshold; ONNX's does not."""
    x, alpha = node.var(0), np.float32(node.real("alpha", 1.0))
    return choose(mb.greater(x=x, y=alpha), x, np.float32(0))


@lowers("Shrink")
def _shrink(node: Node) -> Var:
    x, bias, limit = node.var(0), node.real("bias"), node.real("lambd", 0.5)
    if not is_float(x) and (bias % 1 or limit % 1):
        node.refuse("a fractional bias or threshold on whole numbers")
    below = choose(mb.less(x=x, y=like(x, -limit)), mb.add(x=x, y=like(x, bias)), like(x, 0))
    return choose(mb.greater(x=x, y=like(x, limit)), mb.sub(x=x, y=like(x, bias)), below)


@lowers("Asinh")
def _asinh(node: Node) -> Var:
    """Three ranges, each where its form loses nothing."""
    x = node.var(0)
    size = mb.abs(x=x)
    tame = mb.minimum(x=size, y=np.float32(1e9))
    root = mb.sqrt(x=mb.add(x=mb.mul(x=tame, y=tame), y=np.float32(1)))
    small = mb.atanh(x=mb.real_div(x=mb.minimum(x=size, y=np.float32(1)), y=root))
    middle = log(mb.add(x=tame, y=root))
    large = mb.add(x=log(size), y=np.float32(np.log(2)))
    found = choose(mb.less(x=size, y=np.float32(0.5)), small, middle)
    found = choose(mb.greater(x=size, y=np.float32(1e8)), large, found)
    return mb.mul(x=found, y=mb.sign(x=x))


@lowers("Acosh")
def _acosh(node: Node) -> Var:
    x = node.var(0)
    one = np.float32(1)
    below, above = mb.sqrt(x=mb.sub(x=x, y=one)), mb.sqrt(x=mb.add(x=x, y=one))
    return log(mb.add(x=x, y=mb.mul(x=below, y=above)))


@lowers("Softmax")
def _softmax(node: Node) -> Var:
    return mb.softmax(x=node.var(0), axis=node.axis(default=-1))


@lowers("LogSoftmax")
def _log_softmax(node: Node) -> Var:
    x, axis = node.var(0), node.axis(default=-1)
    shifted = mb.sub(x=x, y=mb.reduce_max(x=x, axes=[axis], keep_dims=True))
    total = mb.reduce_sum(x=mb.exp(x=shifted), axes=[axis], keep_dims=True)
    return mb.sub(x=shifted, y=log(total))
