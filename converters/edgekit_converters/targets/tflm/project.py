"""The sources of a program around the file: model as a C array, operator list, ``main.cc``, a README.

TFLM's C++ sources are in no package registry, so these files are *prepared*: written, not compiled, unless
``TFLM_ROOT`` names a checkout (`toolchain`). They use TFLM's public interface only (`MicroInterpreter`,
`MicroMutableOpResolver`, `GetModel`).
"""

from __future__ import annotations

from pathlib import Path

from edgekit.package import Quantization
from edgekit_converters.targets.tflm.arena import Arena
from edgekit_converters.targets.tflm.content import Content
from edgekit_converters.targets.tflm.names import FILE
from edgekit_converters.values import Built

MARGIN = 1024
"""Bytes added to the measured arena, in whole KiB: optimized kernels ask for a little scratch memory."""
_GUESS = 64 * 1024
_PER_LINE = 16
_SPECIAL = {
    "CUMSUM": "CumSum",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    "ethos-u": "EthosU",
}
_MADE = "// Made by edgekit; made anew with each conversion. Prepared: see README.md.\n"


def write(folder: Path, data: bytes, found: Content, built: Built, arena: Arena | None) -> tuple[str, ...]:
    """Write the sources beside the file, and a README; gives their names."""
    if arena is None:
        basis = "A guess: the tflite-micro wheel was not installed, so nothing was measured."
    else:
        basis = (
            f"Measured with the tflite-micro wheel on a 64-bit host: {arena.needed} bytes (tensors\n"
            f"// {arena.head}, structures {arena.tail}), an upper estimate for 32 bits; then a margin."
        )
    size = arena_bytes(_GUESS if arena is None else arena.needed)
    names = sources(folder, data, found.operators, size=size, basis=basis)
    (folder / "README.md").write_text(_readme(found, built, arena, size, len(data)), encoding="utf-8")
    return tuple(sorted((*names, "README.md")))


def sources(
    folder: Path, data: bytes, operators: tuple[str, ...], *, size: int, basis: str
) -> tuple[str, ...]:
    """Write array, operator list and ``main.cc`` with an arena of `size` bytes; `basis` says where from."""
    files = {
        "model_data.h": _header(len(data)),
        "model_data.cc": _array(data),
        "op_resolver.h": resolver(operators),
        "main.cc": _main(size, basis),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(files)


def arena_bytes(needed: int) -> int:
    """The arena that ``main.cc`` reserves where `needed` bytes were found necessary."""
    return -(-(needed + MARGIN) // 1024) * 1024


def method(operator: str) -> str:
    """The resolver's method that registers `operator`, such as ``AddConv2D`` for ``CONV_2D``."""
    if operator in _SPECIAL:
        return f"Add{_SPECIAL[operator]}"
    words = operator.replace("PADV2", "PAD_V2").split("_")
    return "Add" + "".join(word if word in ("2D", "V2", "3D") else word.capitalize() for word in words)


def resolver(operators: tuple[str, ...]) -> str:
    """``op_resolver.h``: exactly these operators, so that no other kernel is linked."""
    calls = "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.{method(name)}());" for name in operators)
    return f"""{_MADE}
#ifndef MODEL_OP_RESOLVER_H_
#define MODEL_OP_RESOLVER_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using ModelOpResolver = tflite::MicroMutableOpResolver<{len(operators)}>;

inline TfLiteStatus RegisterOps(ModelOpResolver& resolver) {{
{calls}
  return kTfLiteOk;
}}

#endif  // MODEL_OP_RESOLVER_H_
"""


def _header(size: int) -> str:
    return f"""{_MADE}
#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

constexpr unsigned int kModelSize = {size};
extern const unsigned char kModel[kModelSize];

#endif  // MODEL_DATA_H_
"""


def _array(data: bytes) -> str:
    """The file as an aligned array: FlatBuffers are read in place."""
    rows = (data[start : start + _PER_LINE] for start in range(0, len(data), _PER_LINE))
    lines = "\n".join("    " + " ".join(f"{byte:d}," for byte in row) for row in rows)
    return f"""{_MADE}
#include "model_data.h"

alignas(16) const unsigned char kModel[kModelSize] = {{
{lines}
}};
"""


def _main(size: int, basis: str) -> str:
    return f"""{_MADE}
#include "model_data.h"
#include "op_resolver.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_log.h"
#include "tensorflow/lite/micro/system_setup.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {{

// {basis}
constexpr int kArenaSize = {size};
alignas(16) uint8_t arena[kArenaSize];

// Replace this: put one sample into the input, in the input's own type (README.md has scale and zero point).
void Fill(TfLiteTensor* input) {{
  for (size_t i = 0; i < input->bytes; ++i) {{
    input->data.raw[i] = 0;
  }}
}}

}}  // namespace

int main() {{
  tflite::InitializeTarget();
  const tflite::Model* model = tflite::GetModel(kModel);
  if (model->version() != TFLITE_SCHEMA_VERSION) {{
    MicroPrintf("schema version %d, %d expected", static_cast<int>(model->version()), TFLITE_SCHEMA_VERSION);
    return 1;
  }}
  static ModelOpResolver resolver;
  if (RegisterOps(resolver) != kTfLiteOk) {{
    return 1;
  }}
  static tflite::MicroInterpreter interpreter(model, resolver, arena, kArenaSize);
  if (interpreter.AllocateTensors() != kTfLiteOk) {{
    MicroPrintf("the arena of %d bytes is too small", kArenaSize);
    return 1;
  }}
  for (size_t i = 0; i < interpreter.inputs_size(); ++i) {{
    Fill(interpreter.input(i));
  }}
  if (interpreter.Invoke() != kTfLiteOk) {{
    return 1;
  }}
  MicroPrintf("arena used: %d bytes", static_cast<int>(interpreter.arena_used_bytes()));
  return 0;
}}
"""


def _readme(found: Content, built: Built, arena: Arena | None, reserved: int, size: int) -> str:
    ports = "\n".join(
        f"| {kind} | `{port.name}` | {_sizes(port.shape)} | {_integers(port.quantization)} |"
        for kind, items in (("input", built.inputs), ("output", built.outputs))
        for port in items
    )
    measured = "not measured (no tflite-micro wheel)" if arena is None else f"{arena.needed} bytes measured"
    return f"""# A program around {FILE} for TensorFlow Lite Micro

**Prepared**: these sources were written by edgekit and are compiled only where `TFLM_ROOT` names a checkout
of TFLM when the model is converted. The file `{FILE}` itself is what was checked.

| what | |
| --- | --- |
| model | {size} bytes, read in place from flash |
| arena | {measured}; `main.cc` reserves {reserved} |
| operators | {", ".join(found.operators)} |

| port | name | shape (-1: one sample) | integers |
| --- | --- | --- | --- |
{ports}

Build: add the `.cc` files of this folder to a TFLM application (in TFLM's own tree: a folder below
`tensorflow/lite/micro/examples` with a `Makefile.inc` that names them), for example

```sh
make -f tensorflow/lite/micro/tools/make/Makefile TARGET=cortex_m_generic TARGET_ARCH=cortex-m7 \\
  OPTIMIZED_KERNEL_DIR=cmsis_nn microlite
```

and link them with the library that this makes. With CMSIS-NN the arena holds scratch memory besides: the
program prints what it used.
"""


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in shape)


def _integers(quantization: Quantization | None) -> str:
    if quantization is None:
        return "none: the contract's own type"
    return f"real = {quantization.scale:.9g} x (q - {quantization.zero_point})"
