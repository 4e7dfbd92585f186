"""`make test`: every test, in four pytest processes side by side, told as one.

The tests of the house (`tests/house`: locks installed, wheels built, other Pythons) mostly wait for pip
and for the network, those of agent and fleet, each in a process of its own, for processes and clocks;
those of the converters compute. Who runs where is fixed, so that a failure can be repeated: each process
is plain pytest over plain folders. With arguments it is one plain pytest:

    python -m tools.test
    python -m tools.test tests/core -x
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[1]
APART = (("converters",), ("fleet",), ("house",))
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)\b")
_LAST = re.compile(r"^=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s.*$|^=* ?no tests ran in .*$", re.MULTILINE)
_ORDER = ("failed", "error", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning")


def shards() -> tuple[tuple[str, ...], ...]:
    """Folders of the processes: every folder of tests/ that has tests, each once."""
    tests = ROOT / "tests"
    found = sorted({path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")})
    apart = {name for group in APART for name in group}
    rest = tuple(f"tests/{name}" for name in found if name not in apart)
    return rest, *(tuple(f"tests/{name}" for name in group) for group in APART)


def main(arguments: Sequence[str]) -> int:
    """Run; the exit code is pytest's, the worst of both."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.run([*pytest, *arguments], cwd=ROOT, check=False).returncode
    began = time.monotonic()
    first, *others = shards()
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in others]
        shown_one = _start([*pytest, *first], subprocess.PIPE)
        beside = [
            _start([*pytest, "-p", "no:cacheprovider", *folders], log)
            for folders, log in zip(others, kept, strict=True)
        ]
        try:
            shown = _shown(shown_one)
            codes = [process.wait() for process in (shown_one, *beside)]
        finally:
            for process in (shown_one, *beside):
                _end(process)
        hidden = [_text(log) for log in kept]
    print("".join(hidden), end="")
    print(summary([shown, *hidden], time.monotonic() - began))
    return max(codes, key=abs)


def _start(command: Sequence[str], output: IO[str] | int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)


def _shown(process: subprocess.Popen[bytes]) -> str:
    """Show what a process prints as it comes, to its end; that text."""
    parts: list[str] = []
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    assert process.stdout is not None
    with process.stdout as stream:
        while piece := os.read(stream.fileno(), 65_536):
            parts.append(decoder.decode(piece))
            print(parts[-1], end="", flush=True)
    return "".join(parts)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that still runs as Ctrl-C does, so that its tests clean up."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.wait()


def _text(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def summary(outputs: Sequence[str], seconds: float) -> str:
    """Pytest's last line for several runs; a run that has none ended before its end and is an error."""
    counts: Counter[str] = Counter()
    for output in outputs:
        lines = [match.group(0) for match in _LAST.finditer(output)]
        if not lines:
            counts["error"] += 1
            continue
        for number, word in _COUNT.findall(lines[-1]):
            counts[word.rstrip("s") if word.startswith(("error", "warning")) else word] += int(number)
    told = [f"{counts[word]} {_plural(word, counts[word])}" for word in _ORDER if counts[word]]
    minutes = f" ({int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d})"
    return f" {', '.join(told) or 'no tests ran'} in {seconds:.2f}s{minutes} ".center(80, "=")


def _plural(word: str, number: int) -> str:
    return f"{word}s" if word in ("error", "warning") and number != 1 else word


def command(arguments: Sequence[str]) -> int:
    """`main` as a process of its own: ended from outside it ends what it has started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return main(arguments)


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
