"""Which commands exist and what each is for, known without importing the parts.

`edgekit --help` must answer in under 0.3 s, so the one-line helps of edgekit's own commands stand
here; a command of somebody else's plug-in is imported for its help.
"""

from __future__ import annotations

GROUP = "edgekit.commands"

SHORT_HELP = {
    "init": "Scaffold the contract (model.toml) for a source model.",
    "convert": "Compile one source model into verified variants per hardware profile.",
    "verify": "Check a package again: files, digests, probes, and the conversion itself.",
    "diff": "Show what differs between two packages.",
    "export": "Hand a variant over to an iOS or Android app.",
    "tools": "Find, install and remove the foreign tools that some targets use.",
    "profiles": "List, show, check and write hardware profiles.",
    "key": "Make and inspect the signing keys of a fleet.",
    "release": "Add, sign, list, verify and invalidate releases.",
    "fleet": "Run the fleet service and its broker.",
    "slot": "Create slots and keep their ground-truth probes.",
    "rollout": "Bring a release out in rings behind gates; watch it, stop it, take it back.",
    "device": "Enrol, list, show and pin devices.",
    "bench": "Measure a package's variants on enrolled devices.",
    "demo": "The whole line on this machine: train, convert, sign, roll out, stop a bad release.",
}

DISTRIBUTION = {
    "profiles": "edgekit-core",
    **dict.fromkeys(("init", "convert", "verify", "diff", "export", "tools"), "edgekit-converters"),
    **dict.fromkeys(("key", "release", "fleet", "slot", "rollout", "device"), "edgekit-fleet"),
    **dict.fromkeys(("bench", "demo"), "edgekit-fleet"),
}
