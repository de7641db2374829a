"""An object store: obstore's calls, with errors that tell what is missing from what cannot be reached.

obstore is loaded when a bucket is opened. Credentials and options are the environment's, as the providers' own tools
have them (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS``,
``AZURE_STORAGE_ACCOUNT_NAME``, …), or those of the machine's role.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from resweep.errors import CommError, UsageError

if TYPE_CHECKING:
    from obstore.store import MemoryStore, ObjectStore

WORKERS = 8
PART = 8 * 1024 * 1024  # bytes that are sent or fetched in one request
MOST_PARTS = 9_000  # of one file; S3 takes 10,000
CONNECT_TIMEOUT = timedelta(seconds=10)
REQUEST_TIMEOUT = timedelta(seconds=60)  # for one part
RETRY_TIMEOUT = timedelta(seconds=30)
RETRIES = 6
SHORTEST_SECRET = 6  # characters; shorter values of variables that look like secrets are words such as `true`
LONGEST_ERROR = 300  # characters

_PROVIDERS = {"s3": "AWS", "gs": "GOOGLE", "az": "AZURE"}

_memories: dict[str, MemoryStore] = {}
"""What was opened as memory://NAME in this process, for tests."""

_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|SAS|CREDENTIAL", re.IGNORECASE)
_QUERY = re.compile(r"\?[^\s\"']*")


class MissingError(Exception):
    """There is no object of this name."""


class UnreachableError(CommError):
    """The object store does not answer, or refuses; `hopeless` when trying again does not help."""

    def __init__(self, text: str, *, hopeless: bool = False) -> None:
        super().__init__(text)
        self.hopeless = hopeless


class Bucket:
    """The objects below one URL, by their keys."""

    def __init__(self, url: str, store: ObjectStore) -> None:
        self.url = url
        self._store = store

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, at once or not at all."""
        import obstore

        with self._written(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def put_large(self, key: str, parts: Iterable[bytes], *, size: int) -> None:
        """Write an object from parts as they come, at once or not at all. An error of `parts` ends it, and is raised.

        At most `WORKERS` requests are under way, each with one part.
        """
        import obstore

        failed: list[BaseException] = []

        def watched() -> Iterator[bytes]:
            try:
                yield from parts
            except BaseException as error:
                failed.append(error)
                raise

        try:
            with self._written(key):
                obstore.put(self._store, key, watched(), chunk_size=part_size(size), max_concurrency=WORKERS)
        except BaseException:
            if failed:
                raise failed[0] from None
            raise

    def get(self, key: str) -> bytes:
        """A small object, whole."""
        import obstore

        with self._translated(key):
            return bytes(obstore.get(self._store, key).bytes())

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end` of an object that has them."""
        import obstore

        with self._translated(key):
            return obstore.get_range(self._store, key, start=start, end=end).to_bytes()

    def sizes(self, prefix: str) -> dict[str, int]:
        """The keys below a prefix, with the sizes of the objects."""
        import obstore

        with self._translated(prefix):
            return {found["path"]: found["size"] for page in obstore.list(self._store, prefix) for found in page}

    def folders(self, prefix: str) -> list[str]:
        """The names right below a prefix that are prefixes themselves."""
        import obstore

        with self._translated(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        return [path.rpartition("/")[2] for path in found]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; one that is not there any more is no matter."""
        import obstore

        with suppress(MissingError), self._translated("several objects"):
            obstore.delete(self._store, keys)

    @contextmanager
    def _written(self, key: str) -> Iterator[None]:
        try:
            with self._translated(key):
                yield
        except MissingError:
            raise UnreachableError(f"{self.url} cannot be written: there is no such bucket", hopeless=True) from None

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

        try:
            yield
        except FileNotFoundError:
            raise MissingError(key) from None
        except (PermissionDeniedError, UnauthenticatedError, NotSupportedError) as error:
            text = f"{self.url} refuses: {plain_error(error)}; check the credentials in the environment"
            raise UnreachableError(text, hopeless=True) from None
        except (BaseError, OSError) as error:
            raise UnreachableError(f"{self.url} cannot be used: {plain_error(error)}") from None


def part_size(size: int) -> int:
    """Bytes of one part of an object of this size."""
    return max(PART, -(-size // MOST_PARTS))


def plain_error(error: Exception) -> str:
    """The first line of what obstore says, without the queries of URLs, which may be signed, and without secrets."""
    text = _QUERY.sub("?…", str(error).strip().partition("\n")[0])
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _SECRET_NAME.search(name):
            text = text.replace(value, "…")
    return text[:LONGEST_ERROR] or type(error).__name__


def open_bucket(url: str) -> Bucket:
    """The bucket at a checked URL; nothing is sent.

    Raises:
        UsageError: obstore is not installed, or a setting that it needs is missing.
    """
    try:
        from obstore.exceptions import BaseError
    except ImportError:
        raise UsageError(
            f"checkpoints at {url} need the package obstore, which is not installed here; "
            "install it with: pip install 'resweep[checkpoints]'"
        ) from None
    try:
        return Bucket(url, _OPENERS.get(urlsplit(url).scheme, _open_remote)(url))
    except (BaseError, ValueError, OSError) as error:
        raise UsageError(
            f"checkpoints cannot go to {url}: {plain_error(error)}; the settings of an object store are read from the "
            "environment, for instance AWS_REGION, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME"
        ) from None


def _open_remote(url: str) -> ObjectStore:
    from obstore.store import from_url

    provider = _PROVIDERS[urlsplit(url).scheme]
    # Options that are given replace all that obstore would read from the environment.
    client: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT}
    endpoints = [value for name, value in os.environ.items() if name.startswith(f"{provider}_ENDPOINT")]
    if any(endpoint.startswith("http://") for endpoint in endpoints):
        client["allow_http"] = True
    for option in ("allow_http", "allow_invalid_certificates"):
        if os.environ.get(f"{provider}_{option.upper()}", "").lower() in ("1", "true", "yes", "on"):
            client[option] = True
    options: dict[str, Any] = {
        "client_options": client,
        "retry_config": {"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
    }
    if provider == "AWS":
        options["disable_bulk_delete"] = True  # unknown to many servers that speak S3
    return from_url(url, **options)


def _open_folder(url: str) -> ObjectStore:
    from obstore.store import LocalStore

    return LocalStore(unquote(urlsplit(url).path), mkdir=True, automatic_cleanup=True)


def _open_memory(url: str) -> ObjectStore:
    from obstore.store import MemoryStore

    return _memories.setdefault(url, MemoryStore())


_OPENERS: dict[str, Callable[[str], ObjectStore]] = {"file": _open_folder, "memory": _open_memory}
