"""Where the example is: in the checkout this package was installed from, else inside the wheel."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import UnavailableError

_PACKAGE = Path(__file__).resolve().parents[1]
_PLACES = (_PACKAGE.parents[1] / "examples" / "digits", _PACKAGE / "_examples" / "digits")


def train_script() -> Path:
    """``examples/digits/train.py``.

    Raises:
        UnavailableError: this installation came without examples.
    """
    for place in _PLACES:
        if (place / "train.py").is_file():
            return place / "train.py"
    raise UnavailableError(
        "the digits example is not part of this installation",
        where=str(_PLACES[-1]),
        remedy="install edgekit-fleet from its wheel, or run from a checkout",
    )
