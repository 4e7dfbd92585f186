"""The director: signs what one device shall run.

Signatures are over the canonical JSON of the document; the key id is the one TUF computes and lists in
``director.json``. That `Desired.gen` only grows is kept in SQL (`edgekit_fleet.desired`), before
anything is published.
"""

from __future__ import annotations

from pathlib import Path

from securesystemslib.signer import CryptoSigner

from edgekit.digest import canonical_json
from edgekit.documents import Desired, Envelope, Signature
from edgekit_fleet.trust.keys import DIRECTOR, key_path, load_signer, public_key


class Director:
    """Signs with one key."""

    def __init__(self, signer: CryptoSigner) -> None:
        self._signer = signer

    @classmethod
    def load(cls, keys: Path) -> Director:
        """The director whose key lies in the folder `keys`.

        Raises:
            HomeError: no such key.
            TrustError: the key cannot be used.
        """
        return cls(load_signer(key_path(keys, DIRECTOR), DIRECTOR))

    @property
    def keyid(self) -> str:
        """The key's id as TUF computes it."""
        return public_key(self._signer).keyid

    def sign_desired(self, desired: Desired) -> Envelope:
        """`desired` with one signature."""
        return self.sign_document(desired.to_dict())

    def sign_document(self, signed: dict[str, object]) -> Envelope:
        """A JSON-ready document with one signature."""
        made = self._signer.sign(canonical_json(signed))
        return Envelope(signed=signed, signatures=(Signature(keyid=made.keyid, sig=made.signature),))


def sign_desired(desired: Desired, keys: Path) -> Envelope:
    """Sign `desired` with the director key in the folder `keys`."""
    return Director.load(keys).sign_desired(desired)
