"""Everything that a Redis holds, to be compared: what a call changed, and what it did not."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

# What every call may refresh without an effect on any run: clocks, times of being seen, leases.
_VOLATILE_KEYS = (":seen", ":leases")
_VOLATILE_FIELDS = {"tick", "clock", "heard"}
_VOLATILE_RECORDS = (":checkpoint",)


def dump_keys(client: Redis) -> dict[str, Any]:
    """All keys with their values, but tokens that expire and what `_VOLATILE_KEYS` and `_VOLATILE_FIELDS` name.

    Entries of streams keep their ids: an entry that is written again shows. Of leases only the holders are kept.
    """
    return {key: _value(client, key) for key in sorted(client.scan_iter()) if not _is_volatile(client, key)} | {
        f"{key} (holders)": sorted(client.zrange(key, 0, -1)) for key in client.scan_iter(match="*:leases")
    }


def _is_volatile(client: Redis, key: str) -> bool:
    return key.endswith(_VOLATILE_KEYS) or client.pttl(key) >= 0


def _value(client: Redis, key: str) -> Any:
    match client.type(key):
        case "hash":
            return {name: value for name, value in client.hgetall(key).items() if name not in _VOLATILE_FIELDS}
        case "list":
            return client.lrange(key, 0, -1)
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
        case "stream":
            return client.xrange(key)
        case "string" if key.endswith(_VOLATILE_RECORDS):
            record = json.loads(str(client.get(key)))
            for checkpoint in (record, *record.get("kept", ())):
                checkpoint.pop("saved_at")
            return record
        case "string":
            return client.get(key)
        case other:
            raise AssertionError(f"{key!r} is a {other!r}, which the store has no use for")
