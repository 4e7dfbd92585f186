"""The options that a target of a profile may have: keys and values, so that a misspelt one is an error.

What an option does is the target's business (`edgekit_converters.targets`); here it is only known that it
exists and what may stand there. A target that is missing here takes none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgekit.tomlfile import Table

DEPLOYMENTS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
SOCS = ("am5729", "am5749", "am62a", "am67a", "am68a", "am69a", "tda4vm")
VELA = ("accelerator_config", "config", "system_config", "memory_mode")
MOST_THREADS = 1024


def _coreml(table: Table) -> None:
    table.text("deployment_target", DEPLOYMENTS[0], allowed=DEPLOYMENTS)
    table.flag("image_inputs", False)
    table.flag("class_labels", False)
    batch = table.integers("batch", low=1)
    if batch and (len(batch) != 2 or batch[0] > batch[1]):
        raise table.fail("batch", "the least and the most samples of a call were expected, such as [1, 8]")


def _tidl(table: Table) -> None:
    table.text("soc", allowed=SOCS)


def _tflm(table: Table) -> None:
    if table.has("vela"):
        vela = table.table("vela")
        for key in VELA:
            vela.text(key)
        vela.finish()


def _triton(table: Table) -> None:
    table.text("accelerator", "", allowed=("", "tensorrt"))
    table.text("backend", "", allowed=("", "armnn_tflite"))
    table.text("engine_cache", "")
    table.integer("threads", 0, high=MOST_THREADS)
    table.integer("max_batch", 0)
    table.integer("queue_delay_us", 0)
    table.integers("versions", low=1)


def _tensorrt(table: Table) -> None:
    table.integer("max_batch", 0)


READERS: Mapping[str, Callable[[Table], None]] = {
    "coreml": _coreml,
    "tflm": _tflm,
    "tidl": _tidl,
    "triton": _triton,
    "tensorrt": _tensorrt,
}


def check_options(table: Table, target: str) -> None:
    """Read the options of `target`, to no other end than to find what is wrong with them.

    Raises:
        UsageError: of the table's class; an unknown key or a value that cannot be.
    """
    reader = READERS.get(target)
    if reader is not None:
        reader(table)
    table.finish()
