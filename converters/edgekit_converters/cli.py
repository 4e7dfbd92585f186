"""`edgekit convert` and `edgekit init`. Heavy imports happen inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgekit.cli.profiles import profiles_dir


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Hardware profile; may be repeated.",
)
@profiles_dir
@click.option(
    "--target", "targets", multiple=True, metavar="NAME", help="Only these targets of the profiles."
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    metavar="NAME",
    help="fp32, int8 and others that a profile lists, or all; TARGET:NAME for one target alone; "
    "default: the profile's.",
)
@click.option(
    "--deployment-target",
    metavar="NAME",
    help="iOS version for Core ML, iOS15 to iOS26; default: the profile's.",
)
@click.option(
    "--contract", type=click.Path(path_type=Path), help="model.toml; default: the one beside the source."
)
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="npz file or folder with samples for int8."
)
@click.option(
    "--validation",
    type=click.Path(path_type=Path),
    help="npz file or folder to compare on, with labels if there are.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the package.")
@click.option("--prune", is_flag=True, help="Also a variant with as many zeros as the verdict accepts.")
@click.option("--cluster", is_flag=True, help="Also one with as few distinct weights as it accepts.")
@click.option(
    "--finetune",
    metavar="FILE.PY:FUNCTION",
    help="With --prune: your function that trains on what pruning left; its code is run.",
)
@click.option(
    "--budget",
    metavar="TEXT",
    help="Ship one variant a profile, the one that keeps this: latency<30ms,size<2MB,top1>=0.97.",
)
@click.option(
    "--measurements",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Figures of devices for --budget, from edgekit bench; may be repeated.",
)
@click.option("--allow-breach", is_flag=True, help="Ship variants that fail their check, marked as breach.")
@click.option(
    "--trust", is_flag=True, help="Load a pickle (scikit-learn): loading one runs whatever code is in it."
)
@click.option("--seed", default=0, show_default=True, help="For synthetic inputs.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of the stage cache; default: ~/.cache/edgekit."
)
@click.option("--time-limit", default=600.0, show_default=True, help="Seconds one foreign tool may take.")
@click.option("--memory-limit", default=8192, show_default=True, help="MiB one foreign tool may take.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def convert(context: click.Context, /, **options: Any) -> None:
    """Compile SOURCE into verified variants for hardware profiles.

    SOURCE is an ONNX file, a Keras file (.keras, .h5), a SavedModel folder, a .tflite file, a PyTorch
    program (.pt2, TorchScript, or file.py:factory), a Caffe model (.prototxt and .caffemodel beside it),
    an XGBoost (.json, .ubj) or LightGBM (.txt) model, or a pickled scikit-learn pipeline (with --trust).
    Exit code 0: every variant asked for ships; 3: at least one is refused, the others are written; 2:
    wrong usage.
    """
    from edgekit_converters.console import run_convert

    context.exit(run_convert(**options))


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write; default: model.toml beside SOURCE."
)
@click.option("--force", is_flag=True, help="Overwrite an existing contract.")
@click.option(
    "--trust", is_flag=True, help="Load a pickle (scikit-learn): loading one runs whatever code is in it."
)
def init(source: Path, out: Path | None, force: bool, trust: bool) -> None:
    """Scaffold the contract (model.toml) for SOURCE from what the model says about itself."""
    from edgekit_converters.console import run_init

    run_init(source, out, force, trust)
