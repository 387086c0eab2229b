"""Content-addressed bytes: ``blobs/ab/cdef...`` by SHA-256, verified whenever they are read."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from agentnb.errors import ArtifactCorrupted, StoreError
from agentnb.history.faults import store_fault

_PIECE = 1024 * 1024
#: Beginnings of names in the blobs' folder itself: bytes that are just written, a blob that is just removed.
UNFINISHED, ASIDE = ".new-", ".gone-"
_CHECKSUM = re.compile(r"sha256:([0-9a-f]{64})")


def digest_of(data: bytes) -> str:
    """The checksum of `data`: ``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Blobs:
    """The blobs below a folder. Equal bytes are kept once; a checksum is ``sha256:<64 hex digits>``, a size is in bytes."""

    def __init__(self, root: Path) -> None:
        """Keep blobs below `root`, which is created when the first one comes."""
        self.root = root

    def put_bytes(self, data: bytes) -> tuple[str, int]:
        """Keep `data`; return its checksum and size. Raises StoreError."""
        return self.put_pieces([data])

    def put_file(self, source: str | Path, stopped: Callable[[], bool] | None = None) -> tuple[str, int]:
        """Keep what the file holds as it is read; return checksum and size of exactly the bytes that were kept.

        It is read in pieces of 1 MiB, so a file of any size costs no memory. `stopped` is asked before each piece whether to give it up.
        Raises StoreError.
        """

        def pieces() -> Iterator[bytes]:
            while piece := file.read(_PIECE):
                if stopped is not None and stopped():
                    raise StoreError(f"the file {source} was not kept as an artifact: the run was to end")
                yield piece

        try:
            with Path(source).open("rb") as file:
                return self.put_pieces(pieces())
        except StoreError:
            raise
        except OSError as bad:
            raise StoreError(f"the file {source} could not be kept as an artifact: {bad.strerror or bad}") from bad

    def adopt(self, source: Path) -> tuple[str, int]:
        """Keep the file `source`, of the same file system, by moving it here; return checksum and size. Raises StoreError."""
        try:
            with source.open("rb") as file:
                checksum = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            size = source.stat().st_size
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._place(str(source), self.locate(checksum), size)
            source.unlink(missing_ok=True)  # still there only when those bytes were kept already
        except OSError as bad:
            raise store_fault(bad, self.root, "keeping an artifact in") from bad
        return checksum, size

    def read(self, checksum: str) -> bytes:
        """The bytes of `checksum`. Raises ArtifactCorrupted when they are missing or are not those bytes."""
        path = self.locate(checksum)
        try:
            data = path.read_bytes()
        except OSError as bad:
            raise _missing(path, checksum, bad) from bad
        _compare(path, checksum, hashlib.sha256(data).hexdigest())
        return data

    def path(self, checksum: str, *, verify: bool = True) -> Path:
        """The file of `checksum`; with `verify` its bytes are checked first. Raises ArtifactCorrupted as `read` does."""
        path = self.locate(checksum)
        try:
            with path.open("rb") as file:
                if verify:
                    _compare(path, checksum, hashlib.file_digest(file, "sha256").hexdigest())
        except StoreError:
            raise
        except OSError as bad:
            raise _missing(path, checksum, bad) from bad
        return path

    def claim(self, checksum: str) -> None:
        """Verify a blob that is going to be referred to anew, and see to it that no gc removes it meanwhile. Raises as `read` does."""
        path = self.path(checksum)
        try:
            os.utime(path)
            path.stat()  # as in _place
        except OSError as bad:
            raise _missing(path, checksum, bad) from bad

    def open(self, checksum: str) -> BinaryIO:
        """The verified file of `checksum`, open for reading at its start; close it. Raises ArtifactCorrupted as `read` does."""
        return self.path(checksum).open("rb")

    def locate(self, checksum: str) -> Path:
        """Where the blob of `checksum` is, or would be. Raises StoreError for what is no checksum."""
        match = _CHECKSUM.fullmatch(checksum)
        if match is None:
            raise StoreError(f"{checksum!r} is no artifact checksum; it reads 'sha256:' and 64 lower-case hex digits")
        return self.root / match[1][:2] / match[1][2:]

    def remove(self, path: Path, before: float) -> int | None:
        """Remove the blob `path`, that no row refers to, unless its bytes were wanted since `before` (seconds since the epoch).

        Returns the bytes that this freed, None when it stayed. A writer that finds a blob touches it: one that did so before it was
        moved aside is seen by the new time, and gets it back; one that did so after found nothing, and wrote its own.
        """
        aside = self.root / f"{ASIDE}{path.parent.name}{path.name}"
        try:
            os.rename(path, aside)  # noqa: PTH104 - as in _place
            found = aside.stat()
            if found.st_mtime >= before:
                self.restore(aside)
                return None
            aside.unlink()
        except FileNotFoundError:
            return None
        return found.st_size

    def restore(self, aside: Path) -> None:
        """Put back a blob that was moved aside by `remove`, in this process or in one that was killed."""
        name = aside.name.removeprefix(ASIDE)
        os.rename(aside, self.root / name[:2] / name[2:])  # noqa: PTH104

    def put_pieces(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Keep the bytes of all pieces in their order; return their checksum and size. Raises StoreError."""
        digest, size, temporary = hashlib.sha256(), 0, ""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=self.root)
            with os.fdopen(descriptor, "wb") as file:
                for piece in pieces:
                    digest.update(piece)
                    size += file.write(piece)
            checksum = f"sha256:{digest.hexdigest()}"
            self._place(temporary, self.locate(checksum), size)
        except OSError as bad:
            raise store_fault(bad, self.root, "keeping an artifact in") from bad
        finally:
            if temporary:
                with suppress(OSError):
                    os.unlink(temporary)  # noqa: PTH108 - still there only when it was not moved
        return checksum, size

    def _place(self, temporary: str, target: Path, size: int) -> None:
        """Move the finished file to its name, unless those bytes are there; one cut short (a power cut) is replaced."""
        with suppress(OSError):
            if target.stat().st_size == size:
                os.utime(target)  # what nobody referred to so far is wanted now: see `remove`
                target.stat()  # a touch that found it before it was moved aside comes too late, when it is gone by now
                return
        target.parent.mkdir(mode=0o700, exist_ok=True)
        os.replace(temporary, target)  # noqa: PTH105 - rename is atomic: a reader sees all of a blob or none


def _compare(path: Path, checksum: str, found: str) -> None:
    if checksum != f"sha256:{found}":
        raise ArtifactCorrupted(f"the artifact {path} should have checksum {checksum}, but its bytes have sha256:{found}; make it anew")


def _missing(path: Path, checksum: str, bad: OSError) -> ArtifactCorrupted:
    return ArtifactCorrupted(f"the artifact {path} should have checksum {checksum}, but it has none: {bad.strerror or bad}; make it anew")
