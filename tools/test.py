"""`make test`: every test, in two pytest processes side by side, told as one.

The tests of the house (`tests/house`: locks installed, wheels built, other Pythons) mostly wait for pip and
for the network; all others run beside them. Who runs where is fixed, so that a failure can be
repeated: each process is plain pytest over plain folders. With arguments it is one plain pytest:

    python -m tools.test
    python -m tools.test tests/core -x
"""

from __future__ import annotations

import codecs
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
APART = ("house",)
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)\b")
_LAST = re.compile(r"^=* ?((?:\d+ \w+, )*\d+ \w+) in [\d.]+s.*$|^=* ?no tests ran in .*$", re.MULTILINE)
_ORDER = ("failed", "error", "passed", "skipped", "deselected", "xfailed", "xpassed", "warning")


def shards() -> tuple[tuple[str, ...], ...]:
    """Folders of the processes: every folder of tests/ that has tests, each once."""
    tests = ROOT / "tests"
    found = sorted({path.relative_to(tests).parts[0] for path in tests.rglob("test_*.py")})
    beside = tuple(f"tests/{name}" for name in found if name not in APART)
    return beside, tuple(f"tests/{name}" for name in found if name in APART)


def main(arguments: Sequence[str]) -> int:
    """Run; the exit code is pytest's, the worst of both."""
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.run([*pytest, *arguments], cwd=ROOT, check=False).returncode
    began = time.monotonic()
    first, second = shards()
    with tempfile.TemporaryFile("w+") as kept:
        command = [*pytest, "-p", "no:cacheprovider", *second]
        with subprocess.Popen(command, cwd=ROOT, stdout=kept, stderr=subprocess.STDOUT) as beside:
            try:
                shown, code = _shown([*pytest, *first])
                other = beside.wait()
            except BaseException:
                beside.send_signal(signal.SIGINT)
                beside.wait()
                raise
        hidden = _text(kept)
    print(hidden, end="")
    print(summary([shown, hidden], time.monotonic() - began))
    return max(code, other, key=abs)


def _shown(command: Sequence[str]) -> tuple[str, int]:
    """Run a command and show what it prints as it comes; that text and its exit code."""
    parts: list[str] = []
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        while piece := os.read(process.stdout.fileno(), 65_536):
            parts.append(decoder.decode(piece))
            print(parts[-1], end="", flush=True)
    return "".join(parts), process.returncode


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
