"""The script that builds an engine on the device that will run it. *Prepared*: it is not run here."""

from __future__ import annotations

import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from edgekit.package import Tensor
from edgekit.rules import Rules

SCRIPT = "build_engine.sh"
_MODE = 0o755


def write(
    folder: Path,
    *,
    ref: str,
    model: str,
    inputs: tuple[Tensor, ...],
    rules: Rules,
    precision: str,
    batch: int,
    plans: str = "",
) -> Path:
    """Write ``build_engine.sh`` into `folder`.

    Args:
        folder: the variant's.
        ref: ``name@version`` of the model.
        model: the ONNX file, relative to `folder`.
        inputs: the model's; their sizes become the engine's profile where the batch is free.
        rules: of the TensorRT it is for.
        precision: of the variant.
        batch: the largest one that the engine takes, 0 where the file fixes it.
        plans: Triton's model folder for plans, relative to `folder`; empty without one.
    """
    strongly = int(rules.version.partition(".")[0]) >= 10
    text = _template().render(
        ref=ref,
        model=model,
        strongly_typed=_flag(strongly),
        half=_flag(precision != "fp32"),
        shapes=" ".join(shlex.quote(item) for item in shapes(inputs, batch)),
        plans=plans,
        least=int(rules.version.partition(".")[0]),
    )
    path = folder / SCRIPT
    path.write_text(text, encoding="utf-8")
    path.chmod(_MODE)
    return path


def shapes(inputs: tuple[Tensor, ...], batch: int) -> tuple[str, ...]:
    """trtexec's options for a free batch: from one to `batch`, made fast for `batch`."""
    if not batch:
        return ()
    sizes = {"min": 1, "opt": batch, "max": batch}
    return tuple(
        f"--{name}Shapes={','.join(f'{item.name}:{_sizes(item, size)}' for item in inputs)}"
        for name, size in sizes.items()
    )


def _sizes(tensor: Tensor, batch: int) -> str:
    return "x".join(str(size) for size in (batch, *tensor.shape[1:]))


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _template() -> Template:
    """With marks that mean nothing in a shell."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # a shell script, its words are quoted
        variable_start_string="@@",
        variable_end_string="@@",
        comment_start_string="@#",
        comment_end_string="#@",
        block_start_string="@%",
        block_end_string="%@",
    )
    return environment.get_template(f"{SCRIPT}.j2")
