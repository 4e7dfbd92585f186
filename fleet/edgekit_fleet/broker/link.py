"""The running broker as the service uses it (`edgekit_fleet.context.BrokerLink`)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from edgekit_fleet.broker.child import BrokerChild
from edgekit_fleet.broker.choice import Chosen
from edgekit_fleet.broker.files import write_users
from edgekit_fleet.home import Home, Settings

_log = logging.getLogger(__name__)


class Link:
    """Writes users and has the broker read them; for an external broker its operator does the latter."""

    def __init__(self, home: Home, settings: Settings, chosen: Chosen, child: BrokerChild | None) -> None:
        self._home, self._settings = home, settings
        self._chosen, self._child = chosen, child
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """``mosquitto``, ``fallback`` or ``external``."""
        return self._chosen.kind

    @property
    def host(self) -> str:
        """Where it listens for devices."""
        return self._chosen.device_host

    @property
    def port(self) -> int:
        """Its port for devices."""
        return self._chosen.device_port

    @property
    def ca(self) -> str:
        """The certificate (PEM) by which devices check its identity; empty: no TLS."""
        return self._chosen.ca

    def admit(self, devices: Callable[[], Mapping[str, str]]) -> None:
        """Make the broker know exactly these devices; waits a few seconds for it to say so.

        `devices` is called under a lock, so that of two enrolments the later list is the one that stays.
        """
        with self._lock:
            write_users(self._home, self._settings, devices())
            if self._child is not None and not self._child.reload():
                _log.warning("the broker has not confirmed its new users; devices try again by themselves")
