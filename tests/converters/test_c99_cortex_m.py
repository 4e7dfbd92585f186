"""The generated C on emulated Cortex-M boards: compiled for them, asked over their UART (QEMU, MPS2).

QEMU runs the processor's instructions and knows nothing of its timing: bits are proven, speed is not.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edgekit_agent.serving.serial_client import SerialModel
from edgekit_converters.targets.c99.build import write
from edgekit_converters.targets.c99.compiler import STRICT
from tests.converters.c99_files import micro
from tests.converters.c99_host import Pipe

HERE = Path(__file__).with_name("cortex_m")
COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
BOARDS = {"cortex-m4": ("mps2-an386", "-mcpu=cortex-m4"), "cortex-m7": ("mps2-an500", "-mcpu=cortex-m7")}
pytestmark = pytest.mark.skipif(
    shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None,
    reason=f"{COMPILER} and {EMULATOR} are not installed (Debian: gcc-arm-none-eabi, qemu-system-arm)",
)


def firmware(data: bytes, folder: Path, cpu: str) -> Path:
    """The model as a program of the board, without a C library."""
    write(data, folder, "test")
    sources = [str(path) for path in folder.glob("*.c") if path.name != "serial_main.c"]
    out = folder / "firmware.elf"
    options = ["-mthumb", cpu, "-Os", "-ffreestanding", "-nostdlib", f"-I{HERE / 'include'}", f"-I{folder}"]
    linked = [
        "-T",
        HERE / "board.ld",
        "-Wl,--no-warn-rwx-segments",
        "-o",
        out,
        HERE / "board.c",
        *sources,
        "-lgcc",
    ]
    subprocess.run([str(part) for part in (COMPILER, *STRICT, *options, *linked)], check=True)
    return out


@contextmanager
def emulated(elf: Path, board: str) -> Iterator[Pipe]:
    """The board at work, its UART as a line."""
    quiet = ["-display", "none", "-monitor", "none", "-serial", "stdio"]
    command = [EMULATOR, "-M", board, "-kernel", str(elf), *quiet]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield Pipe(process)
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout):
            assert end is not None
            end.close()


@pytest.mark.parametrize("cpu", BOARDS)
def test_an_emulated_board_gives_the_wheels_bits_over_its_uart(cpu: str, zoo: Path, tmp_path: Path) -> None:
    pytest.importorskip("tflite_micro", reason="the tflite-micro wheel is not installed")
    board, option = BOARDS[cpu]
    data = (zoo / "keyword_spotting/kws_ref_model.tflite").read_bytes()
    with emulated(firmware(data, tmp_path, option), board) as line:
        device = SerialModel(line, timeout=20)
        [source], [target] = device.description.inputs, device.description.outputs
        rng = np.random.default_rng(1)
        samples = [rng.integers(-128, 128, source.shape).astype(np.int8) for _ in range(2)]
        for given, [wanted] in zip(samples, micro(data, [[item] for item in samples]), strict=True):
            np.testing.assert_array_equal(device.raw({source.name: given})[target.name], wanted)
