"""API keys: read from the environment or a file, kept as digests, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ArgumentError

VARIABLE = "DIFFUSE_FAST_API_KEYS"
MIN_LENGTH = 16


@dataclass(frozen=True)
class Key:
    """An API key.

    Attributes:
        name: What logs call it.
        digest: SHA-256 of the key.
    """

    name: str
    digest: bytes


def read_keys(path: Path | None, environ: Mapping[str, str] = os.environ) -> tuple[Key, ...]:
    """The keys of a file, one a line, and of the variable ``DIFFUSE_FAST_API_KEYS``, separated by commas.

    Args:
        path: The file, or None. A line is ``KEY`` or ``NAME:KEY``; empty lines and lines that begin with ``#`` are ignored.
        environ: The environment.

    Raises:
        ArgumentError: the file cannot be read or has no key, or a key is shorter than 16 characters.
    """
    entries = [part for part in environ.get(VARIABLE, "").split(",") if part.strip()]
    keys = [_key(entry, VARIABLE) for entry in entries]
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError(f"the file of keys {str(path)!r} cannot be read: {error}") from None
        found = [_key(line, str(path)) for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not found:
            raise ArgumentError(f"the file of keys {str(path)!r} has no key; write one a line.")
        keys += found
    return tuple(keys)


def find(keys: Sequence[Key], authorization: str | None) -> Key | None:
    """The key of a header ``Authorization``: ``Bearer KEY``, or ``Basic`` with the key as password, for which browsers ask."""
    digest = hashlib.sha256(_presented(authorization).encode("utf-8", "surrogateescape")).digest()
    found = None
    for key in keys:  # all of them, so that the time does not tell which
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def _presented(authorization: str | None) -> str:
    scheme, _, rest = (authorization or "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode("utf-8", "surrogateescape").partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _key(entry: str, source: str) -> Key:
    name, colon, secret = entry.strip().partition(":")
    if not colon:
        name, secret = "", name
    secret = secret.strip()
    if len(secret) < MIN_LENGTH:
        raise ArgumentError(f"a key of {source} has {len(secret)} characters; it must have at least {MIN_LENGTH}.")
    digest = hashlib.sha256(secret.encode()).digest()
    return Key(name.strip() or digest.hex()[:8], digest)
