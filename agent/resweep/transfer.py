"""A checkpoint on its way to an object store and back: whole or not at all, and checked by size and digest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from resweep.bucket import PART, WORKERS, Bucket, MissingError
from resweep.manifest import MANIFEST, DamagedError, File, Manifest, key_of
from resweep.parallel import in_order

FILES = "files"

Check = Callable[[], None]
"""Called between two parts; raises what shall end the transfer."""


def _no_check() -> None:
    pass


def upload(
    bucket: Bucket,
    prefix: str,
    source: Path,
    *,
    step: int | None,
    metadata: Mapping[str, Any],
    check: Check = _no_check,
) -> None:
    """Write a file or a folder below a prefix that nobody else uses: first the files, then the manifest.

    Memory is bounded by a few parts, whatever the size. Links are followed; dangling ones are left out.

    Raises:
        UnreachableError: The object store does not answer, or refuses.
        OSError: The source cannot be read.
    """
    names, empty = _contents(source)
    small = [name for name in names if _path(source, name).stat().st_size <= PART]
    large = [name for name in names if name not in set(small)]

    def put(name: str) -> File:
        check()
        return _put(bucket, f"{prefix}/{FILES}/{key_of(name)}", _path(source, name), name, check)

    files = [file for _, file in in_order(put, small, workers=WORKERS)]
    files += [put(name) for name in large]
    check()
    manifest = Manifest(source.name, source.is_dir(), tuple(files), tuple(empty), step, metadata)
    bucket.put(f"{prefix}/{MANIFEST}", manifest.encode())


def _contents(source: Path) -> tuple[list[str], list[str]]:
    """The names of files, relative to the source if that is a folder, and of folders that hold nothing."""
    if not source.is_dir():
        return [source.name], []
    names, empty = [], []
    for folder, below, here in os.walk(source, followlinks=True):
        relative = Path(folder).relative_to(source)
        found = [name for name in here if os.path.isfile(os.path.join(folder, name))]
        names += [(relative / name).as_posix() for name in found]
        if not found and not below and folder != str(source):
            empty.append(relative.as_posix())
    return sorted(names), empty


def _path(source: Path, name: str) -> Path:
    return source / name if source.is_dir() else source


def _put(bucket: Bucket, key: str, path: Path, name: str, check: Check) -> File:
    """Write one file; its digest is that of the very bytes that were sent."""
    digest = hashlib.sha256()
    size = 0

    def parts(file: BinaryIO) -> Iterator[bytes]:
        nonlocal size
        while part := file.read(PART):
            check()
            digest.update(part)
            size += len(part)
            yield part

    with path.open("rb", buffering=0) as file:
        expected = os.fstat(file.fileno()).st_size
        if expected <= PART:
            bucket.put(key, b"".join(parts(file)))
        else:
            bucket.put_large(key, parts(file), size=expected)
    return File(name, size, digest.hexdigest())


def download(bucket: Bucket, prefix: str, target: Path) -> tuple[Path, Manifest]:
    """Bring what `upload` wrote to the folder `target`; returns the path of the file or folder in it.

    What is there already and right is not fetched again, and what an earlier call fetched in part is continued, in
    `target` with the ending ``.partial``. At most `WORKERS` parts are in memory.

    Raises:
        DamagedError: It is not there, or not whole, or not what was saved.
        UnreachableError: The object store does not answer, or refuses; a later call goes on from there.
        OSError: It cannot be written here.
    """
    found = bucket.sizes(prefix)  # fails where there is no bucket, which is another matter than a missing checkpoint
    try:
        manifest = Manifest.decode(bucket.get(f"{prefix}/{MANIFEST}"))
    except MissingError:
        raise DamagedError("it is not there") from None
    for file in manifest.files:
        size = found.get(f"{prefix}/{FILES}/{key_of(file.name)}")
        if size != file.size:
            was = "is missing" if size is None else f"has {size} bytes"
            raise DamagedError(f"{file.name!r}, of {file.size} bytes, {was}")
    if not _is_right(target, manifest):
        _Fetching(bucket, prefix, manifest, target).run()
    return target / manifest.name, manifest


def _is_right(target: Path, manifest: Manifest) -> bool:
    if not target.exists():
        return False
    try:
        digests = (_digest_of(_place(target, manifest, file)).hexdigest() for file in manifest.files)
        return all(digest == file.sha256 for digest, file in zip(digests, manifest.files, strict=True))
    except OSError:
        return False


def _place(folder: Path, manifest: Manifest, file: File) -> Path:
    return folder / manifest.name / file.name if manifest.folder else folder / file.name


def _digest_of(path: Path) -> hashlib._Hash:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


class _Piece(NamedTuple):
    file: File
    start: int
    end: int


class _Fetching:
    """A download under way, in a folder beside the target that outlives this process."""

    def __init__(self, bucket: Bucket, prefix: str, manifest: Manifest, target: Path) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._manifest = manifest
        self._target = target
        self._partial = target.with_name(f"{target.name}.partial")

    def run(self) -> None:
        root = self._partial / self._manifest.name if self._manifest.folder else self._partial
        root.mkdir(parents=True, exist_ok=True)
        for name in self._manifest.empty:
            (root / name).mkdir(parents=True, exist_ok=True)
        present = {file: self._present(file) for file in self._manifest.files}
        wrong = self._fetch(present)
        # What was here before may be what is wrong: that is fetched once more, from its beginning.
        again = {file: 0 for file in wrong if present[file]}
        if len(again) < len(wrong) or (again and self._fetch(again)):
            shutil.rmtree(self._partial, ignore_errors=True)
            raise DamagedError(f"{wrong[0].name!r} has another digest than when it was saved")
        shutil.rmtree(self._target, ignore_errors=True)
        self._partial.rename(self._target)

    def _present(self, file: File) -> int:
        """How many bytes of a file an earlier call fetched; the file exists after this."""
        path = _place(self._partial, self._manifest, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if path.stat().st_size > file.size:
                path.unlink()
        with path.open("ab") as out:
            return out.tell()

    def _fetch(self, files: Mapping[File, int]) -> list[File]:
        """Append what is missing after the bytes that are here; returns the files that came out wrong."""
        digests = {}
        for file, present in files.items():
            path = _place(self._partial, self._manifest, file)
            os.truncate(path, present)
            digests[file] = _digest_of(path)

        def pieces() -> Iterator[_Piece]:
            for file, present in files.items():
                for start in range(present, file.size, PART):
                    yield _Piece(file, start, min(start + PART, file.size))

        try:
            for piece, data in in_order(self._get, pieces(), workers=WORKERS):
                with _place(self._partial, self._manifest, piece.file).open("ab") as out:
                    out.write(data)
                digests[piece.file].update(data)
        except MissingError as error:
            raise DamagedError(f"an object of it is gone: {error}") from None
        return [file for file, digest in digests.items() if digest.hexdigest() != file.sha256]

    def _get(self, piece: _Piece) -> bytes:
        return self._bucket.get_range(f"{self._prefix}/{FILES}/{key_of(piece.file.name)}", piece.start, piece.end)
