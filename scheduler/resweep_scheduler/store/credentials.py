"""Keys with which W&B's client comes to the gateway.

A key that a person creates is 40 random characters, more than 200 bits: no list of guesses finds it, so one round of
SHA-256 keeps it as safe as a slow hash would, and a gateway can check it with every request. Only the hash is stored.

The key of an attempt is not stored at all: it is derived from the claim token by a secret that all gateways of a server
share. So it is void as soon as another attempt has the run, and whoever knows it cannot make one for another attempt.

Its prefix is signed, too: that a key was never given out is known before anything is read or looked up for it.

Both have the form ``<prefix>-<40 characters>``, which every version of W&B's client takes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.keys import KEY_INDEX, SECRET, Scope, new_id, validate_project
from resweep_scheduler.store.records import ClaimToken

if TYPE_CHECKING:
    from resweep_scheduler.store.connect import Client

_ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SECRET_LENGTH = 40
_PERSONAL = "rsk"
_ATTEMPT = "rsa"
_SEAL_LENGTH = 16


class Rights(StrEnum):
    """What a key allows."""

    READ = "read"  # look at runs and sweeps
    WRITE = "write"  # look, log, create sweeps, work as an agent


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is stored: not the key itself, but its hash."""

    key_id: str
    entity: str
    rights: Rights
    name: str
    created_at: int  # ms
    digest: str

    def allows(self, entity: str, *, write: bool) -> bool:
        """Whether the key may be used for this."""
        return self.entity == entity and (not write or self.rights is Rights.WRITE)


class Credentials(StoreBase):
    """Keys of a server; they belong to no project."""

    def __init__(self, client: Client, *, url: str = "") -> None:
        super().__init__(client, Scope(), url=url)

    def create_key(self, *, entity: str, rights: Rights, name: str = "") -> tuple[KeyRecord, str]:
        """Makes a key; returns its record and the key, which nobody can find out later.

        Raises:
            InvalidNameError: The entity cannot be one.
        """
        validate_project(entity, "entity")
        key_id = new_id()
        key = f"{_PERSONAL}_{key_id}-" + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
        record = KeyRecord(key_id, entity, rights, name, round(time.time() * 1000), _digest(key))
        self._try(lambda: self.client.hset(KEY_INDEX, key_id, json.dumps(asdict(record))))
        return record, key

    def keys_list(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        found = self._try(lambda: self.client.hgetall(KEY_INDEX))
        return sorted((_decode(str(text)) for text in found.values()), key=lambda record: record.created_at)

    def remove_key(self, key_id: str) -> bool:
        """Makes a key void at once; False when there is none with this id."""
        return bool(self._try(lambda: self.client.hdel(KEY_INDEX, key_id)))

    def find_key(self, key: str) -> KeyRecord | None:
        """The record of a key; None when it is not one of ours, or void."""
        prefix, _, _ = key.partition("-")
        kind, _, key_id = prefix.partition("_")
        if kind != _PERSONAL:
            return None
        text = self._try(lambda: self.client.hget(KEY_INDEX, key_id))
        if text is None:
            return None
        record = _decode(str(text))
        return record if hmac.compare_digest(record.digest, _digest(key)) else None

    def secret(self) -> bytes:
        """What gateways sign with: made by the first who asks, the same for all."""
        self._try(lambda: self.client.setnx(SECRET, secrets.token_hex(32)))
        return str(self._try(lambda: self.client.get(SECRET))).encode()


def attempt_key(secret: bytes, scope: Scope, token: ClaimToken) -> str:
    """The key of one attempt of one run."""
    run = base64.b32encode(token.run_id.encode()).decode().rstrip("=").lower()
    signature = sign(secret, str(scope), token.run_id, str(token.attempt), token.nonce)
    return f"{_ATTEMPT}_{run}_{_seal(secret, run)}-{signature}"


def run_of_attempt_key(key: str) -> str | None:
    """The run that a key of an attempt is for; None when it is no such key. Says nothing about its being valid."""
    prefix, _, _ = key.partition("-")
    kind, _, run = prefix.partition("_")
    if kind != _ATTEMPT:
        return None
    run, _, _ = run.partition("_")
    try:
        return base64.b32decode(run.upper() + "=" * (-len(run) % 8)).decode()
    except ValueError:
        return None


def is_sealed(secret: bytes, key: str) -> bool:
    """Whether a key of an attempt was made for its run by who has the secret. Says nothing about its being valid."""
    _, _, parts = key.partition("-")[0].partition("_")
    run, _, seal = parts.partition("_")
    return hmac.compare_digest(_seal(secret, run).encode(), seal.encode())


def sign(secret: bytes, *parts: str) -> str:
    """40 hexadecimal digits (160 bits) that only who has the secret can make for these texts."""
    return hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).hexdigest()[:_SECRET_LENGTH]


def _seal(secret: bytes, run: str) -> str:
    return sign(secret, "key of an attempt", run)[:_SEAL_LENGTH]


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _decode(text: str) -> KeyRecord:
    record = json.loads(text)
    return KeyRecord(**record | {"rights": Rights(record["rights"])})
