"""Who may look at the page.

The page only reads. From this machine, under a loopback name, it is open: whoever has an account here
could read the process list as well, and the service binds to loopback by default. Anybody else needs
the operator token, typed once into ``/login``, which sets a cookie that only this host's pages send.
A request that came through a proxy is never taken for a local one, and a foreign Host name (DNS
rebinding) is not a loopback name.

The cookie is ``<expiry>.<hmac>`` under a key derived from the operator token: changing the token ends
all sessions, and nothing is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping

COOKIE = "edgekit_session"
LIFETIME = 12 * 3600
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Access:
    """Decides who reads, and makes and checks session cookies.

    Args:
        token: the operator token, read anew at each call so that it can be changed.
        now: wall clock, seconds since the epoch.
    """

    def __init__(self, *, token: Callable[[], str], now: Callable[[], float]) -> None:
        self._token = token
        self._now = now

    def may_read(self, *, peer: str | None, headers: Mapping[str, str], cookie: str | None) -> bool:
        """Whether a request may see the fleet. `headers` by lower-case name."""
        if is_local(peer, headers):
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.token_fits(given.strip()):
            return True
        return cookie is not None and self._cookie_fits(cookie)

    def token_fits(self, given: str) -> bool:
        """Whether `given` is the operator token; takes the same time for any wrong one."""
        token = self._token()
        return bool(token) and hmac.compare_digest(given.encode(), token.encode())

    def new_cookie(self) -> str:
        """A session that ends after `LIFETIME` seconds."""
        expiry = str(int(self._now()) + LIFETIME)
        return f"{expiry}.{self._seal(expiry)}"

    def _cookie_fits(self, cookie: str) -> bool:
        expiry, _, seal = cookie.partition(".")
        if not (expiry.isascii() and expiry.isdigit()) or len(expiry) > 12:
            return False
        fits = hmac.compare_digest(seal.encode("utf-8", "replace"), self._seal(expiry).encode())
        return fits and int(expiry) > self._now() and bool(self._token())

    def _seal(self, expiry: str) -> str:
        key = hashlib.sha256(b"edgekit-web-session:" + self._token().encode()).digest()
        return hmac.new(key, expiry.encode(), hashlib.sha256).hexdigest()


def is_local(peer: str | None, headers: Mapping[str, str]) -> bool:
    """Whether a request comes from this machine, under a loopback name and through no proxy."""
    if peer is None or any(name in headers for name in _PROXIED):
        return False
    return _is_loopback(peer) and _is_loopback(_host_name(headers.get("host", "")))


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rsplit(":", 1)[0] if host.count(":") == 1 else host


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
