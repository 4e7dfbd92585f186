"""Broker credentials: mosquitto's password file, computed here.

A line is ``user:$7$<iterations>$<salt>$<hash>``: PBKDF2-HMAC-SHA512, 12 bytes of salt, 64 of hash, both
in base64. Our passwords are 256 random bits, so stretching adds nothing and mosquitto's own default of
101 iterations is kept: the broker hashes at every connect and is single-threaded.

Passwords are derived from the home's secret, so that the answer to an enrolment can be given a second
time without any password being stored.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path

from edgekit.errors import StorageError
from edgekit.files import atomic_write, read_bytes
from edgekit_fleet.home import Home

ITERATIONS = 101
_MOST_ITERATIONS = 1_000_000
_SALT, _HASH = 12, 64
_DUMMY = "$7$101$" + base64.b64encode(bytes(_SALT)).decode() + "$" + base64.b64encode(bytes(_HASH)).decode()


def hash_password(password: str, *, salt: bytes | None = None) -> str:
    """`password` in mosquitto's ``$7$`` form.

    Args:
        password: in the clear.
        salt: 12 bytes; random by default.
    """
    chosen = salt if salt is not None else secrets.token_bytes(_SALT)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), chosen, ITERATIONS, _HASH)
    return f"$7${ITERATIONS}${base64.b64encode(chosen).decode()}${base64.b64encode(digest).decode()}"


def check_password(password: str, hashed: str | None) -> bool:
    """Whether `password` fits; takes as long for an unknown user (None) as for a wrong password."""
    parts = (hashed or _DUMMY).split("$")
    if len(parts) != 5 or parts[1] != "7" or not parts[2].isdigit() or int(parts[2]) > _MOST_ITERATIONS:
        return False
    try:
        salt, expected = base64.b64decode(parts[3]), base64.b64decode(parts[4])
    except binascii.Error:
        return False
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, int(parts[2]), len(expected) or 1)
    return hmac.compare_digest(digest, expected) and hashed is not None


def home_secret(home: Home) -> bytes:
    """The secret passwords are derived from; made on first use, mode 0600."""
    path = home.broker / "secret"
    if not path.exists():
        with home.locked("secret"):
            if not path.exists():
                atomic_write(path, secrets.token_bytes(32), mode=0o600)
    secret = read_bytes(path, limit=64)
    if len(secret) != 32:
        raise StorageError("32 bytes were expected", where=str(path), remedy="restore it from a backup")
    return secret


def derive_password(secret: bytes, purpose: str, *names: str) -> str:
    """The password for `purpose` and `names`: 256 bits, URL-safe text, always the same."""
    message = "\0".join(("edgekit", purpose, *names)).encode()
    return base64.urlsafe_b64encode(hmac.digest(secret, message, "sha256")).decode().rstrip("=")


def service_user(tenant: str) -> str:
    """User name and client id of the service."""
    return f"edgekit-service-{tenant}"


def service_password(home: Home, tenant: str) -> str:
    """The service's own password at the broker."""
    return derive_password(home_secret(home), "service", tenant)


def producer_password(home: Home, name: str) -> str:
    """Password of a configured stream producer."""
    return derive_password(home_secret(home), "producer", name)


def write_password_file(path: Path, users: Mapping[str, str]) -> None:
    """Write user → hash as mosquitto reads it, mode 0600."""
    lines = "".join(f"{user}:{hashed}\n" for user, hashed in sorted(users.items()))
    atomic_write(path, lines.encode(), mode=0o600)


def read_password_file(path: Path) -> dict[str, str]:
    """User → hash; lines that are none are skipped."""
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {user: hashed for user, _, hashed in pairs}
