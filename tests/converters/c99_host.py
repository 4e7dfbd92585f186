"""Generated C as a program of this computer, and a pipe as its serial line."""

from __future__ import annotations

import atexit
import functools
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import edgekit_converters.targets.c99 as target
from edgekit_converters.targets.c99.build import write
from edgekit_converters.targets.c99.compiler import STRICT, compile_c, compiler

SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SOURCES = Path(target.__file__).parent / "sources"
MODELS_OWN = ("ek_serial_model.c",)
"""What includes the model's own header."""
STRICTER = ("-Wconversion", "-Wshadow", "-Wstrict-prototypes")


class Pipe:
    """A process' standard input and output as a line: `read` waits a little."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()

    def read(self, size: int = 1) -> bytes:
        """At most `size` bytes that are there, or come within 50 ms."""
        ready, _, _ = select.select([self._out], [], [], 0.05)
        return os.read(self._out, size) if ready else b""

    def write(self, data: bytes) -> None:
        """All of `data`."""
        while data:
            data = data[os.write(self._in, data) :]


def program(data: bytes, folder: Path, options: Sequence[str] = SANITIZED) -> tuple[Path, Mapping[str, Any]]:
    """The C of a TFLite file, compiled with its serial line as a program; and the generator's facts.

    Kernels are the same for all models: they are compiled once.
    """
    facts = write(data, folder, "test")
    kernels = tuple(sorted(path.name for path in folder.glob("ek_*.c") if path.name not in MODELS_OWN))
    objects = _objects(tuple(options))
    ready = [str(objects / name.replace(".c", ".o")) for name in kernels]
    return compile_c(folder, folder / "model", (*STRICTER, *options, *ready), skip=kernels), facts


@functools.cache
def _objects(options: tuple[str, ...]) -> Path:
    """A folder with all kernels compiled."""
    place = Path(tempfile.mkdtemp(prefix="edgekit-c99-kernels-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    path = compiler()
    assert path is not None
    sources = sorted(SOURCES.glob("ek_*.c"))
    files = [str(item) for item in sources if item.name not in MODELS_OWN]
    subprocess.run([path, *STRICT, *STRICTER, *options, "-c", *files], cwd=place, check=True)
    return place


@contextmanager
def running(binary: Path, *arguments: str) -> Iterator[Pipe]:
    """The program at work; that it ends well is checked."""
    process = subprocess.Popen(
        [binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield Pipe(process)
        assert process.stdin is not None
        process.stdin.close()
        code = process.wait(10)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert (code, said) == (0, "")
    finally:
        process.kill()
        process.wait()
        for end in (process.stdin, process.stdout, process.stderr):
            assert end is not None
            end.close()
