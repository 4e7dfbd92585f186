"""The C of a program: ``model.h``, ``model.c``, ``model_weights.h``, and the kernels that it needs.

The text depends on the model alone, so that the same model gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from edgekit_converters.frontends.tflite_model.reader import Array, Stored
from edgekit_converters.targets.c99.program import Program
from edgekit_converters.targets.c99.steps import Call, Data, count

_CTYPES = {"int8": "int8_t", "uint8": "uint8_t", "float32": "float"}
_COMMON = ("ek_fixed.h", "ek_ops.h", "ek_window.h")
_SERIAL = ("ek_identity.h", "ek_serial.h", "ek_serial.c", "ek_serial_model.c", "serial_main.c")
_WIDTH = 110


def sources(program: Program) -> tuple[dict[str, str], int]:
    """Texts by file name, and the bytes of the constant arrays."""
    kernels = sorted({call.source for step in program.steps for call in step.calls})
    pool = _Pool()
    body = "".join(_invocations(program, pool))
    texts = {
        "model.h": _header(program),
        "model_weights.h": _weights(pool),
        "model.c": _source(program, pool, body),
        **{name: _shipped(name) for name in (*_COMMON, *_SERIAL, *kernels)},
    }
    return texts, sum(data.values.nbytes for _, data in pool.arrays.values())


def _shipped(name: str) -> str:
    return (files("edgekit_converters.targets.c99") / "sources" / name).read_text(encoding="utf-8")


class _Pool:
    """Constant arrays, each kept once, and the parameters of the calls."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, bytes], tuple[str, Data]] = {}
        self.parameters: list[str] = []

    def name(self, data: Data) -> str:
        """The array's name; the same numbers have the same one."""
        key = (data.ctype, data.values.tobytes())
        if key not in self.arrays:
            self.arrays[key] = (f"data_{len(self.arrays)}", data)
        return self.arrays[key][0]


def _invocations(program: Program, pool: _Pool) -> Iterator[str]:
    for number, step in enumerate(program.steps):
        yield f"    /* {step.kind} */\n"
        for part, call in enumerate(step.calls):
            name = f"step_{number}" + (f"_{part}" if len(step.calls) > 1 else "")
            fields = "".join(_field(key, value, pool, 1) for key, value in call.fields.items())
            pool.parameters.append(f"static const {call.struct} {name} = {{\n{fields}}};\n")
            yield f"    {call.function}(&{name}, {', '.join(_arguments(program, call, pool))});\n"


def _arguments(program: Program, call: Call, pool: _Pool) -> Iterator[str]:
    for place, index in enumerate(call.tensors):
        tensor = program.file.tensors[index]
        real = tensor.dtype == np.float32
        if tensor.data is not None:
            data = Data(ctype=_CTYPES[str(tensor.dtype)], values=tensor.data)
            yield f"(const {'float' if real else 'int8_t'} *){pool.name(data)}"
            continue
        const = "" if place == len(call.tensors) - 1 else "const "
        yield f"({const}{'float' if real else 'int8_t'} *)AT({program.offsets[index]})"


def _field(key: str, value: Any, pool: _Pool, depth: int) -> str:
    return f"{'    ' * depth}.{key} = {_value(value, pool, depth)},\n"


def _value(value: Any, pool: _Pool, depth: int) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, Data):
        return pool.name(value)
    if isinstance(value, Mapping):
        inner = "".join(_field(key, item, pool, depth + 1) for key, item in value.items())
        return f"{{\n{inner}{'    ' * depth}}}"
    if isinstance(value, Sequence):
        return "{" + ", ".join(str(item) for item in value) + "}"
    return _real(value) if isinstance(value, float) else _whole(value)


def _whole(value: int) -> str:
    return "(-2147483647 - 1)" if value == -(1 << 31) else str(value)


def _real(value: float) -> str:
    return f"{np.format_float_scientific(np.float32(value), unique=True, trim='0')}f"


def _weights(pool: _Pool) -> str:
    """The constant arrays."""
    parts = ["/* The model's constants, written by edgekit. */\n#include <stdint.h>\n"]
    for name, data in pool.arrays.values():
        flat = data.values.reshape(-1)
        rows = "\n".join(_rows(flat))
        parts.append(f"\nstatic const {data.ctype} {name}[{len(flat)}] = {{\n{rows}\n}};\n")
    return "".join(parts)


def _rows(flat: Array) -> Iterator[str]:
    row = "   "
    for item in flat.tolist():
        text = f" {_real(item) if isinstance(item, float) else _whole(item)},"
        if len(row) + len(text) > _WIDTH:
            yield row
            row = "   "
        row += text
    yield row


def _source(program: Program, pool: _Pool, body: str) -> str:
    ends = (("input", program.file.inputs), ("output", program.file.outputs))
    used = "\n\n".join(item.rstrip() for item in pool.parameters)
    places = "".join(
        _places(kind, [program.offsets[index] for index in indices.values()]) for kind, indices in ends
    )
    sizes = "".join(
        _places(f"{kind}_size", [_bytes(program.file.tensors[index]) for index in indices.values()])
        for kind, indices in ends
    )
    description = f"{json.dumps(ports(program))[1:]}"
    return _SOURCE.format(
        parameters=used,
        places=places + sizes,
        body=body.rstrip(),
        description="\n".join(_rows(np.frombuffer(description.encode(), np.uint8).astype(np.int8))),
        length=len(description.encode()),
    )


def _places(kind: str, values: Sequence[int]) -> str:
    return f"static const size_t {kind}s[{len(values)}] = {{{', '.join(str(item) for item in values)}}};\n"


def _bytes(tensor: Stored) -> int:
    return count(tensor.shape) * tensor.dtype.itemsize


def ports(program: Program) -> dict[str, Any]:
    """What the device tells about its ports."""
    tensors = program.file.tensors
    return {
        kind: [_port(name, tensors[index]) for name, index in ports.items()]
        for kind, ports in (("inputs", program.file.inputs), ("outputs", program.file.outputs))
    }


def _port(name: str, tensor: Stored) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "dtype": str(tensor.dtype), "shape": list(tensor.shape)}
    if tensor.scale is not None and tensor.zero is not None and tensor.dtype != np.float32:
        found |= {"scale": float(tensor.scale[0]), "zero_point": int(tensor.zero[0])}
    return found


def _header(program: Program) -> str:
    macros = [f"#define MODEL_ARENA_BYTES {program.arena}"]
    for kind, ports in (("INPUT", program.file.inputs), ("OUTPUT", program.file.outputs)):
        macros.append(f"#define MODEL_{kind}S {len(ports)}")
        for number, (name, index) in enumerate(ports.items()):
            macros += _macros(f"MODEL_{kind}_{number}", name, program.file.tensors[index])
    return _HEADER.format(macros="\n".join(macros))


def _macros(prefix: str, name: str, tensor: Stored) -> Iterator[str]:
    yield f"#define {prefix}_NAME {_quoted(name)}"
    yield f"#define {prefix}_TYPE {_CTYPES[str(tensor.dtype)]}"
    yield f"#define {prefix}_SHAPE {{{', '.join(str(size) for size in tensor.shape)}}}"
    yield f"#define {prefix}_BYTES {_bytes(tensor)}"
    if tensor.scale is not None and tensor.zero is not None and tensor.dtype != np.float32:
        yield f"#define {prefix}_SCALE {_real(float(tensor.scale[0]))}"
        yield f"#define {prefix}_ZERO_POINT ({int(tensor.zero[0])})"


def _quoted(text: str) -> str:
    """A string literal of C; what is not plain becomes an octal escape."""
    plain = {ord(c) for c in "._-/:; ()[]{}+=,"}
    parts = (chr(b) if (chr(b).isalnum() and b < 128) or b in plain else f"\\{b:03o}" for b in text.encode())
    return '"' + "".join(parts) + '"'


_HEADER = """\
/* A quantized network in plain C99, written by edgekit. It allocates nothing, prints nothing and keeps all
 * of its state in one static arena.
 *
 *     model_init();
 *     memcpy(model_input(0), sample, model_input_bytes(0));
 *     model_invoke();
 *     use(model_output(0));
 *
 * Inputs and outputs share the arena with everything between: invoke overwrites the inputs, so write all
 * of them before each call, and read the outputs before writing again. real = (integer - ZERO_POINT) * SCALE.
 *
 * Two models in one program: compile each one's model.c with its own -DEK_MODEL=name, which makes the
 * functions name_init and so on. Where the arena lies: -DMODEL_ARENA='...' is put before its definition,
 * for example __attribute__((section(".dtcm"))). */
#ifndef EDGEKIT_MODEL_H
#define EDGEKIT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifndef EK_MODEL
#define EK_MODEL model
#endif
#define EK_JOIN_(a, b) a##_##b
#define EK_JOIN(a, b) EK_JOIN_(a, b)
#define model_init EK_JOIN(EK_MODEL, init)
#define model_invoke EK_JOIN(EK_MODEL, invoke)
#define model_input EK_JOIN(EK_MODEL, input)
#define model_output EK_JOIN(EK_MODEL, output)
#define model_input_bytes EK_JOIN(EK_MODEL, input_bytes)
#define model_output_bytes EK_JOIN(EK_MODEL, output_bytes)
#define model_ports EK_JOIN(EK_MODEL, ports)
#define model_ports_bytes EK_JOIN(EK_MODEL, ports_bytes)

{macros}

/* Clears the arena. */
void model_init(void);

/* Computes the outputs from the inputs; 0. */
int model_invoke(void);

/* Memory of input or output `i`, NULL when there is none of that number. */
void *model_input(int i);
const void *model_output(int i);
size_t model_input_bytes(int i);
size_t model_output_bytes(int i);

/* The ports as JSON, without its first brace: what a serial line tells after the model's identity. */
extern const char model_ports[];
extern const size_t model_ports_bytes;

#endif
"""

_SOURCE = """\
/* The steps of the network, written by edgekit. See model.h. */
#include "model.h"

#include <string.h>

#include "ek_ops.h"
#include "model_weights.h"

#ifndef MODEL_ARENA
#define MODEL_ARENA
#endif

MODEL_ARENA static union {{
    uint8_t bytes[MODEL_ARENA_BYTES];
    float aligned_for_floats;
    int32_t aligned_for_words;
}} arena;

#define AT(offset) ((void *)(arena.bytes + (offset)))

{parameters}

{places}
const char model_ports[] = {{
{description}
}};
const size_t model_ports_bytes = {length};

void model_init(void)
{{
    memset(&arena, 0, sizeof arena);
}}

int model_invoke(void)
{{
{body}
    return 0;
}}

void *model_input(int i)
{{
    return i >= 0 && i < MODEL_INPUTS ? AT(inputs[i]) : NULL;
}}

const void *model_output(int i)
{{
    return i >= 0 && i < MODEL_OUTPUTS ? AT(outputs[i]) : NULL;
}}

size_t model_input_bytes(int i)
{{
    return i >= 0 && i < MODEL_INPUTS ? input_sizes[i] : 0;
}}

size_t model_output_bytes(int i)
{{
    return i >= 0 && i < MODEL_OUTPUTS ? output_sizes[i] : 0;
}}
"""
