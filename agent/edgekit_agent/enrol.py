"""Enrolment: a one-time token becomes a device identity.

The key is made here and never leaves (0600); the request proves its possession; the service's TUF
root is accepted only if its sha256 is the one the token carries. Enrolling again after a lost answer
uses the same key. Runs in a command of its own, so cryptography is not in the resident process.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from edgekit.documents import DeviceFacts, EnrolAnswer, EnrolRequest
from edgekit.errors import DocumentError
from edgekit.files import atomic_write, read_bytes
from edgekit_agent import web
from edgekit_agent.config import Home, load_config, write_template
from edgekit_agent.detect import detect
from edgekit_agent.errors import ConfigError, EnrolmentError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,256}\.[0-9a-f]{64}\Z")
_CONTEXT = "edgekit-enrol:"
_REMEDIES = {
    401: "ask for a new token",
    403: "ask for a new token",
    409: "choose another --name; the token is still good",
}


def enrol(
    home: Home,
    *,
    url: str,
    token: str,
    name: str = "",
    labels: Mapping[str, str] | None = None,
    runtimes: tuple[str, ...] = (),
    precisions: tuple[str, ...] = (),
) -> EnrolAnswer:
    """Enrol this device and write its identity into `home`.

    Raises:
        ConfigError: enrolled already, or a malformed URL or token.
        EnrolmentError: refused by the service, or the service's root is not the token's.
        TransferError: the service cannot be reached.
    """
    web.check_url(url)
    if not _TOKEN.match(token):
        raise ConfigError(
            "not an enrolment token", where="--token", remedy="copy the whole token, <secret>.<64 hex digits>"
        )
    if home.identity.exists():
        raise ConfigError(
            "this home is enrolled already",
            where=str(home.identity),
            remedy="use another --home, or remove this one to start anew",
        )
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not home.config.exists():
        write_template(home.config, labels=labels or {}, runtimes=runtimes, precisions=precisions)
    facts = detect(load_config(home.config)).facts
    answer = _ask(web.Service(url=url), request_for(home.key, token=token, name=name, facts=facts))
    check_root(answer, token)
    atomic_write(home.root, answer.root.encode())
    atomic_write(home.identity, answer.to_bytes(), mode=0o600)
    return answer


def request_for(key: Path, *, token: str, name: str, facts: DeviceFacts) -> EnrolRequest:
    """The request, with the proof that this device holds the private key (made now if missing)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    if key.exists():
        private = load_pem_private_key(read_bytes(key, limit=1 << 16), password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ConfigError("is not an Ed25519 key", where=str(key), remedy="move it away")
        os.chmod(key, 0o600)
    else:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        atomic_write(key, pem, mode=0o600)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    proof = private.sign((_CONTEXT + token).encode())
    return EnrolRequest(token=token, public_key=public.hex(), proof=proof.hex(), facts=facts, name=name)


def check_root(answer: EnrolAnswer, token: str) -> None:
    """Accept the service's root only if the token vouches for it.

    Raises:
        EnrolmentError: it is another root: this is not the service that issued the token.
    """
    wanted = token.rpartition(".")[2]
    if hashlib.sha256(answer.root.encode()).hexdigest() != wanted:
        raise EnrolmentError(
            "the service's root is not the one the token vouches for",
            where="enrolled.root",
            remedy="check --url; if it is right, ask for a new token",
            code="wrong_root",
        )


def _ask(service: web.Service, request: EnrolRequest) -> EnrolAnswer:
    headers = {"Content-Type": "application/json"}
    answer = web.request(service, "/v1/enrol", method="POST", body=request.to_bytes(), headers=headers)
    where = service.address("/v1/enrol")
    if answer.status not in (200, 201):
        raise EnrolmentError(
            f"the service refused (HTTP {answer.status}): {_detail(answer.body)}",
            where=where,
            remedy=_REMEDIES.get(answer.status),
        )
    try:
        return EnrolAnswer.parse(answer.body)
    except DocumentError as error:
        raise EnrolmentError(f"unreadable answer: {error}", where=where) from error


def _detail(body: bytes) -> str:
    """The service's own words, from ``{"error": {"message"}}``, ``{"error": …}`` or plain text."""
    text = body.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except ValueError:
        return text[:200]
    error = value.get("error", value.get("detail", text)) if isinstance(value, dict) else text
    if isinstance(error, dict):
        error = error.get("message", error)
    return str(error)[:200]
