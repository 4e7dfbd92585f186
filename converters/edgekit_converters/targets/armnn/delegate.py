"""``armnn.json``: how the agent sets up Arm NN for a variant, as the delegate's options are called.

The delegate (``libarmnnDelegate.so``) is upstream's way to run TFLite files; it is in no package index, so
the file also says what the parser is given where there is no delegate. Options as upstream's documentation of
the external delegate names them.
"""

from __future__ import annotations

import json

from edgekit.armnn import BACKENDS

CONFIGURATION = "armnn.json"
SCHEMA = 1


def configuration(release: str) -> bytes:
    """The file for a variant written for `release`."""
    facts = {
        "schema": SCHEMA,
        "release": release,
        "backends": list(BACKENDS),
        "delegate": {"backends": ",".join(BACKENDS), "logging-severity": "warning"},
    }
    return (json.dumps(facts, indent=2) + "\n").encode()
