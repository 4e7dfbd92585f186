"""Who may read and write which topics: written as mosquitto's ACL file, and decided here for the fallback.

The rules for devices are exactly `edgekit.topics.READ_BY_DEVICE` and ``WRITTEN_BY_DEVICE`` below the
device's own branch; ``%u`` stands for the user name, which is the device id and the client id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgekit.errors import DocumentError
from edgekit.topics import READ_BY_DEVICE, ROOT, WRITTEN_BY_DEVICE

READ, WRITE, BOTH = "read", "write", "readwrite"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`access` to topics that match `topic`; for one `user`, or for everybody with ``%u`` put in."""

    access: str
    topic: str
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class AccessList:
    """All rules; what no rule allows is denied."""

    rules: tuple[Rule, ...]

    def to_text(self) -> str:
        """Mosquitto's ACL file."""
        lines = ["# Written by edgekit; changes are overwritten.", ""]
        for user in sorted({rule.user for rule in self.rules if rule.user is not None}):
            lines.append(f"user {user}")
            lines += [f"topic {rule.access} {rule.topic}" for rule in self.rules if rule.user == user]
            lines.append("")
        lines += [f"pattern {rule.access} {rule.topic}" for rule in self.rules if rule.user is None]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> AccessList:
        """Read what `to_text` writes.

        Raises:
            DocumentError: a line of another kind.
        """
        rules: list[Rule] = []
        user: str | None = None
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split(maxsplit=2)
            if not words or words[0].startswith("#"):
                continue
            if words[0] == "user" and len(words) == 2:
                user = words[1]
            elif words[0] == "topic" and len(words) == 3 and user is not None:
                rules.append(Rule(access=words[1], topic=words[2], user=user))
            elif words[0] == "pattern" and len(words) == 3:
                rules.append(Rule(access=words[1], topic=words[2]))
            else:
                raise DocumentError(f"{line!r} is not understood", where=f"acl:{number}")
        return cls(rules=tuple(rules))

    def may_write(self, user: str, topic: str) -> bool:
        """Whether `user` may publish to `topic`."""
        return self._allows(user, topic, WRITE)

    def may_read(self, user: str, topic: str) -> bool:
        """Whether a message on `topic` may be delivered to `user`."""
        return self._allows(user, topic, READ)

    def may_subscribe(self, user: str, topic_filter: str) -> bool:
        """Whether every topic that `topic_filter` can match may be read by `user`."""
        return any(covers(pattern, topic_filter) for pattern in self._patterns(user, READ))

    def _allows(self, user: str, topic: str, access: str) -> bool:
        if "+" in topic or "#" in topic:
            return False
        return any(covers(pattern, topic) for pattern in self._patterns(user, access))

    def _patterns(self, user: str, access: str) -> Iterable[str]:
        plain = bool(user) and not set(user) & set("+#/")
        for rule in self.rules:
            if rule.access not in (access, BOTH):
                continue
            if rule.user == user:
                yield rule.topic
            elif rule.user is None and plain:
                yield rule.topic.replace("%u", user)


def covers(pattern: str, topic_filter: str) -> bool:
    """Whether everything `topic_filter` (a topic or a filter) can match is matched by `pattern`."""
    wide, narrow = pattern.split("/"), topic_filter.split("/")
    for index, level in enumerate(wide):
        if level == "#":
            return not (index == 0 and narrow[0].startswith("$"))
        if index >= len(narrow) or narrow[index] == "#":
            return False
        if level == "+":
            if index == 0 and narrow[0].startswith("$"):
                return False
        elif level != narrow[index]:
            return False
    return len(wide) == len(narrow)


def fleet_access(*, tenant: str, service: str, producers: Sequence[str] = ()) -> AccessList:
    """The rules of one fleet.

    Args:
        tenant: level of every topic.
        service: the service's user name.
        producers: users who send samples to ``in/<slot>`` and read ``out/<slot>`` of any device.
    """
    base = f"{ROOT}/{tenant}"
    rules = [Rule(access=BOTH, topic=f"{base}/#", user=service)]
    for producer in producers:
        rules.append(Rule(access=WRITE, topic=f"{base}/d/+/in/+", user=producer))
        rules.append(Rule(access=READ, topic=f"{base}/d/+/out/+", user=producer))
    rules += [Rule(access=WRITE, topic=f"{base}/d/%u/{leaf}") for leaf in WRITTEN_BY_DEVICE]
    rules += [Rule(access=READ, topic=f"{base}/d/%u/{leaf}") for leaf in READ_BY_DEVICE]
    return AccessList(rules=tuple(rules))
