"""The rollout plans the demo writes, as a user would write them."""

from __future__ import annotations

_TIMERS = """
[timers]
notified = "60s"
downloading = "60s"
verifying = "60s"
preparing = "60s"
probing = "60s"
trial = "60s"
"""

_GATES = """gates = [
    { type = "failures", limit = 0.1 },
    { type = "latency", limit = 5.0 },
    { type = "probes", limit = 0.05 },
    { type = "predictions", limit = 0.25 },
]
"""


def first_plan(soak: float) -> str:
    """Canary 10 %, half, rest; what a small fleet cannot prove does not stop it."""
    rings = "".join(
        f'\n[[ring]]\nname = "{name}"\nselect = {{ percent = {percent} }}\nsoak = "{soak:g}s"\n'
        f'on_inconclusive = "proceed_after_soak"\n{_GATES}'
        for name, percent in (("canary", 10), ("half", 50), ("rest", 100))
    )
    return f'trial_seconds = "2s"\n{_TIMERS}{rings}'


def second_plan(soak: float) -> str:
    """The same rings for v2. The canaries are judged at the end of the soak, so that every gate has its
    say; any FAIL takes the whole fleet back."""
    rings = "".join(
        f'\n[[ring]]\nname = "{name}"\nselect = {{ percent = {percent} }}\nsoak = "{soak:g}s"\n'
        f'on_fail = "rollback_all"\nearly_stop = false\n{_GATES}'
        for name, percent in (("canary", 10), ("half", 50), ("rest", 100))
    )
    return f'trial_seconds = "2s"\n{_TIMERS}{rings}'
