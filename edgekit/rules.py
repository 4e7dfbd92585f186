"""Rules files: what one version of a runtime accepts (`hw_profiles/rules/<target>-<version>.toml`).

Per set of ops: the allowed activation and weight types, whether weights are symmetric and per
channel, fixed output scales, and groups whose inputs and outputs must share a scale; besides that,
limits of single ops with a reason code. Profiles name a rules file; rules do not inherit. This
module only reads them: quantization and the planners apply them.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.digest import PREFIX, sha256_file
from edgekit.errors import ProfileError
from edgekit.profile import PRECISIONS, RUNTIMES, TARGETS, search_folders
from edgekit.tomlfile import Table, did_you_mean, read_toml

SCHEMA = 1
TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int4", "uint4")
BIASES = ("int32", "float")
RESCUES = ("float32", "int16")
RESTS = ("float32", "float16")
COMPRESSIONS = ("sparse", "palette", "int8", "int4")
FUSED = ("none", "relu", "relu6", "relu_n1_to_1")
PADDINGS = ("same", "valid")
MOST_AXES = 8
_CODE = re.compile(r"[a-z0-9_]+\Z")


@dataclass(frozen=True, kw_only=True)
class OpRule:
    """How the ops of one set may be quantized.

    `ops` are ONNX op types; one op may have several rules, each for other activation types.
    `activations` and `weights` are allowed types; `scale` and `zero_point` fix the output's
    quantization (softmax 1/256, −128); `same_scale`: output shares its input's; `merges_activation`:
    a Relu or Clip that follows is part of the op, and only its result is quantized. `power_of_two` holds for
    weights too; `unsigned`: where zero points are 0, what is never negative is held in unsigned integers;
    `weight_bits`: bits of a weight where they are fewer than its type has (0: all).
    """

    ops: tuple[str, ...]
    activations: tuple[str, ...]
    weights: tuple[str, ...] = ()
    weights_symmetric: bool = True
    weights_per_channel: bool = False
    activations_symmetric: bool = False
    power_of_two: bool = False
    scale: float | None = None
    zero_point: int | None = None
    same_scale: bool = False
    merges_activation: bool = False
    unsigned: bool = False
    weight_bits: int = 0


@dataclass(frozen=True, kw_only=True)
class Limit:
    """An op the runtime does not take, or takes only so: `reason_code`, what it is, what to do.

    `check` names the test that a target makes of each such node; without one the limit is only told.
    """

    op: str
    reason_code: str
    detail: str
    remedy: str
    check: str = ""


@dataclass(frozen=True, kw_only=True)
class Allow:
    """Operators of the runtime's file format (TFLite's names), and in which form it takes them.

    One entry that fits is enough; a `Limit` of the same name says what is wrong with other forms. `types`:
    of what is computed (constants of places and sizes do not count); `rank`: the most axes; `fused`:
    activations that may be fused; `padding`: the kinds taken, empty for both; `unset`: options that must not
    be set; `inputs`: how many there may be, 0 for any number; `weights_per_channel`: whether weights may have
    a scale a channel; `grouped`: whether filters may see a part of the channels; `same_rank`: whether inputs
    must have as many axes as each other; `odd_window`: whether a pool's window must hold an odd number.
    """

    ops: tuple[str, ...]
    types: tuple[str, ...]
    rank: int = 4
    fused: tuple[str, ...] = ("none",)
    padding: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    inputs: int = 0
    weights_per_channel: bool = True
    grouped: bool = True
    same_rank: bool = False
    odd_window: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One runtime version's rules. `io` lists dtypes of inputs and outputs, `precisions` what it builds.

    `bias`: whether biases are quantized (``int32``, at input scale times weight scale) or stay float;
    `rescue`: what a layer falls back to that int8 harms, the cheaper one on this runtime; `rest`: the
    type of what is not quantized; `compression`: forms of weights that it keeps compressed, so that they
    make the file smaller or the model faster; `allow`: the operators of its file format that it has (TFLite's
    names) with the forms it takes them in, empty where it has all that are written;
    `inputs_symmetric`: the model's inputs have zero point 0.
    """

    name: str
    target: str
    version: str
    runtime: str
    precisions: tuple[str, ...]
    io: tuple[str, ...]
    ops: tuple[OpRule, ...]
    limits: tuple[Limit, ...]
    sources: tuple[str, ...]
    digest: str
    bias: str = "int32"
    rescue: str = "float32"
    rest: str = "float32"
    compression: tuple[str, ...] = ()
    allow: tuple[Allow, ...] = ()
    inputs_symmetric: bool = False

    def rule(self, op: str, activation: str | None = None) -> OpRule | None:
        """The rule for ONNX op type `op` (with this activation type), or None when it stays in float."""
        fitting = (item for item in self.ops if op in item.ops)
        return next((item for item in fitting if activation in (None, *item.activations)), None)

    def limit(self, op: str) -> Limit | None:
        """The limit on ONNX op type `op`, if there is one."""
        return next((item for item in self.limits if item.op == op), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def list_rules(folder: Path | None = None) -> tuple[str, ...]:
    """Names of all rules files, in `folder` or below all folders searched for profiles, sorted."""
    return tuple(sorted({path.stem for base in _folders(folder) for path in base.glob("*.toml")}))


def _folders(folder: Path | None) -> tuple[Path, ...]:
    return (folder,) if folder else tuple(base / "rules" for base in search_folders())


def load_rules(name: str, folder: Path | None = None) -> Rules:
    """Read the rules called `name`, such as ``tflite-2.3``.

    Raises:
        ProfileError: unknown (with the nearest names) or invalid (with file, line, key, allowed values).
    """
    known = list_rules(folder)
    if name not in known:
        raise ProfileError(f"unknown rules {name!r}", remedy=did_you_mean(name, known), code="unknown_rules")
    places = (base / f"{name}.toml" for base in _folders(folder))
    return read_rules(next(path for path in places if path.is_file()))


def read_rules(path: Path) -> Rules:
    """Read a rules file.

    Raises:
        ProfileError: invalid (with file, line, key and allowed values).
    """
    table = read_toml(path, ProfileError, lines=True)
    schema = table.integer("schema")
    if schema != SCHEMA:
        raise table.fail("schema", f"{schema} is not supported, {SCHEMA} is", "update edgekit")
    rules = build_rules(table, name=path.stem, digest=PREFIX + sha256_file(path))
    if path.stem != f"{rules.target}-{rules.version}":
        raise table.fail("version", f"the file must be called {rules.target}-{rules.version}.toml")
    table.finish()
    return rules


def build_rules(table: Table, *, name: str, digest: str) -> Rules:
    """Rules from their table; the JSON Schema is made by handing this a table that takes notes."""
    table.integer("schema")
    return Rules(
        name=name,
        target=table.text("target", allowed=TARGETS),
        version=table.text("version"),
        runtime=table.text("runtime", allowed=RUNTIMES),
        precisions=table.texts("precisions", allowed=PRECISIONS, some=True, once=True),
        io=table.texts("io", allowed=(*TYPES, "int64", "bool")),
        ops=table.tables("op", _op),
        limits=table.tables("limit", _limit),
        sources=table.texts("sources"),
        digest=digest,
        bias=table.text("bias", "int32", allowed=BIASES),
        inputs_symmetric=table.flag("inputs_symmetric", False),
        rescue=table.text("rescue", "float32", allowed=RESCUES),
        rest=table.text("rest", "float32", allowed=RESTS),
        compression=table.texts("compression", allowed=COMPRESSIONS),
        allow=table.tables("allow", _allow),
    )


def _op(table: Table) -> OpRule:
    return OpRule(
        ops=table.texts("ops", some=True, once=True),
        activations=table.texts("activations", allowed=TYPES, some=True, once=True),
        weights=table.texts("weights", allowed=TYPES, once=True),
        weights_symmetric=table.flag("weights_symmetric", True),
        weights_per_channel=table.flag("weights_per_channel", False),
        activations_symmetric=table.flag("activations_symmetric", False),
        power_of_two=table.flag("power_of_two", False),
        scale=table.maybe_number("scale", above=0),
        zero_point=table.integer("zero_point", low=-(1 << 15), high=(1 << 16) - 1)
        if table.has("zero_point")
        else None,
        same_scale=table.flag("same_scale", False),
        merges_activation=table.flag("merges_activation", False),
        unsigned=table.flag("unsigned", False),
        weight_bits=table.integer("weight_bits", 0, high=16),
    )


def _limit(table: Table) -> Limit:
    return Limit(
        op=table.text("op"),
        reason_code=_code(table),
        detail=table.text("detail"),
        remedy=table.text("remedy"),
        check=table.text("check", ""),
    )


def _code(table: Table) -> str:
    """A word that programs may look for."""
    found = table.text("reason_code")
    if found and not _CODE.match(found):
        raise table.fail("reason_code", f"a word of a-z, 0-9 and _ was expected, not {found!r}")
    return found


def _allow(table: Table) -> Allow:
    return Allow(
        ops=table.texts("ops", some=True, once=True),
        types=table.texts("types", allowed=(*TYPES, "int64", "bool"), some=True, once=True),
        rank=table.integer("rank", 4, low=1, high=MOST_AXES),
        fused=("none", *table.texts("fused", allowed=FUSED)),
        padding=table.texts("padding", allowed=PADDINGS),
        unset=table.texts("unset"),
        inputs=table.integer("inputs", 0),
        weights_per_channel=table.flag("weights_per_channel", True),
        grouped=table.flag("grouped", True),
        same_rank=table.flag("same_rank", False),
        odd_window=table.flag("odd_window", False),
    )
