"""The public names, pinned: what is not in `__all__` is private, and adding to it is a decision.

`public_names.json` holds the `__all__` of the core's modules and of each part's own package: what
others may import. Modules inside a part keep theirs for their own reader. After a deliberate change:
``python -m tests.house.test_public_names``.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = Path(__file__).with_name("public_names.json")
PACKAGES = ("edgekit", "converters/edgekit_converters", "agent/edgekit_agent", "fleet/edgekit_fleet")


def names_in(path: Path) -> list[str] | None:
    """The `__all__` of a source file, read without importing it; None when it has none."""
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return sorted(ast.literal_eval(node.value))
    return None


def public_names() -> dict[str, list[str]]:
    """`__all__` by module name."""
    found = {}
    for package in PACKAGES:
        base = (ROOT / package).parent
        for path in sorted((ROOT / package).rglob("*.py")):
            names = names_in(path)
            if names is not None:
                module = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
                if package == "edgekit" or "." not in module:
                    found[module] = names
    return found


def test_the_public_names_are_those_that_were_decided() -> None:
    assert public_names() == json.loads(PINNED.read_text())


if __name__ == "__main__":
    PINNED.write_text(json.dumps(public_names(), indent=2) + "\n")
