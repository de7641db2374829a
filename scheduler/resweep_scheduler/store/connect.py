"""From a URL to a client, for every kind of server that resweep knows.

    redis://[[user]:password@]host[:6379][/DB]                 TCP
    rediss://…                                                 TCP with TLS
    unix://[[user]:password@]/path/to/socket[?db=DB]           a socket on this machine
    redis+sentinel://[[user]:password@]h1[:26379],h2,…/MASTER[/DB]
    redis+cluster://[[user]:password@]h1[:6379],h2,…

`rediss+sentinel` and `rediss+cluster` are the same with TLS. User and password are percent-encoded. Options follow as
a query: see `OPTIONS`.

The clients retry nothing: redis-py's own retry sends a write again whose reply was lost, and so doubles it. Whoever
calls retries from outside, with scripts that are idempotent by their claim token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from resweep_scheduler.store.errors import InvalidUrlError

if TYPE_CHECKING:
    import redis
    from redis.cluster import RedisCluster

    type_of_client = redis.Redis | RedisCluster

Client = "redis.Redis | RedisCluster"
