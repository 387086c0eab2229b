"""What changed in a run's workspace: counted, and kept as a patch, new files and commits."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agentnb.engine.git import Git, GitFailed, items
from agentnb.engine.listing import TooMany, changes, listing, load
from agentnb.engine.making import rescue_commits
from agentnb.engine.masking import Masker
from agentnb.engine.trees import Job, Trees, shown_name
from agentnb.events import Json
from agentnb.history.artifacts import Blobs

PATCH, COMMITS, BUNDLE, FILES = "changes.patch", "commits.json", "commits.bundle", "changes.json"
#: No patch is made of changes in files that have more bytes than this together, before and after.
MAX_PATCH_SOURCE = 512 << 20
#: New files are kept one by one up to these bounds; all of them are in the patch.
MAX_NEW_FILES, MAX_NEW_FILE_BYTES, MAX_NEW_BYTES = 100, 16 << 20, 64 << 20
_PIECE = 1 << 20
_DIFF = ("--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")


@dataclass(slots=True)
class Change:
    """A file that differs. `mode`: the new one, 0 when it was deleted; `size`: of both versions together."""

    name: str
    new: bool
    mode: int
    size: int


class Diff:
    """The difference between a workspace's start and now. Raises GitFailed where git refuses."""

    def __init__(self, job: Job, timeout_s: float | None = None) -> None:
        """Look at the folder."""
        self._trees = Trees(job, timeout_s)
        self.git = self._trees.git
        self._pair = (job["base"], self._trees.write())
        self.warnings, self.incomplete = self._trees.warnings, self._trees.incomplete

    def files(self) -> list[Change]:
        """The files that differ."""
        raw = self.git("diff-tree", "-r", "--raw", "-z", "--no-renames", "--no-abbrev", *self._pair).split(b"\0")
        heads = [head.decode().split() for head in raw[:-1:2]]
        sizes = self._sizes({sha for head in heads for mode, sha in zip(head[:2], head[2:4], strict=True) if mode[-6:] != "160000"})
        return [
            Change(os.fsdecode(name), head[4] == "A", int(head[1], 8), sizes.get(head[2], 0) + sizes.get(head[3], 0))
            for head, name in zip(heads, raw[1::2], strict=True)
        ]

    def _sizes(self, wanted: set[str]) -> dict[str, int]:
        names = sorted(sha for sha in wanted if sha.strip("0"))
        said = self.git("cat-file", "--batch-check=%(objectname) %(objectsize)", data="".join(f"{sha}\n" for sha in names).encode())
        pairs = [line.split() for line in said.decode().splitlines()]
        return {sha: int(size) for sha, size in pairs if size.isdigit()}

    def lines(self) -> tuple[int, int]:
        """How many lines were inserted and deleted in text files."""
        rows = [item.split("\t", 2) for item in items(self.git("diff-tree", "-r", "--numstat", "-z", *_DIFF, *self._pair))]
        return sum(int(row[0]) for row in rows if row[0].isdigit()), sum(int(row[1]) for row in rows if row[1].isdigit())

    def write_patch(self, into: BinaryIO) -> None:
        """The patch, which takes binary files, modes and links along."""
        self.git("diff-tree", "-r", "-p", "--binary", "--full-index", *_DIFF, *self._pair, into=into)


class Keeper:
    """Keeps what changed as blobs, and tells which they are."""

    def __init__(self, job: Job) -> None:
        """`job`: as it was made, with `secrets`, which are masked in what is kept."""
        self._blobs = Blobs(Path(job["store"]) / "blobs")
        self._secrets = job.get("secrets") or []
        self.masked = False
        self.artifacts: list[Json] = []

    def keep(self, name: str, file: BinaryIO, content_type: str | None = None) -> None:
        """Keep what is left in a file. Raises StoreError."""
        checksum, size = self._blobs.put_pieces(self._clean(file))
        kind = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.artifacts.append({"name": shown_name(name), "checksum": checksum, "size": size, "content_type": kind})

    def _clean(self, file: BinaryIO) -> Iterator[bytes]:
        pieces = iter(lambda: file.read(_PIECE), b"")
        if not self._secrets:
            yield from pieces
            return
        masker, given, shown = Masker(self._secrets), hashlib.sha256(), hashlib.sha256()
        for piece in pieces:
            given.update(piece)
            clean = masker.feed(piece)
            shown.update(clean)
            yield clean
        rest = masker.feed(b"", last=True)
        shown.update(rest)
        yield rest
        self.masked = self.masked or given.digest() != shown.digest()


def collect(job: Job) -> Json:
    """Count and keep what changed: counts, `artifacts`, `commits`, `branch`, `warnings`, and whether all of it is kept (`complete`)."""
    keeper, warnings = Keeper(job), list[str]()
    counts: Json = {"files_changed": None, "insertions": None, "deletions": None}
    found: Json = {"complete": True, "commits": 0, "branch": None}
    try:
        commits, found["branch"] = rescue_commits(job)
        found["commits"] = len(commits)
        if commits:
            _keep_commits(job, keeper, commits)
        if not os.path.isdir(job["folder"]):  # noqa: PTH112
            warnings.append("the workspace is gone: what changed in it is not known")  # and there is nothing to keep of it
        elif job.get("git"):
            found["complete"] = _keep_diff(job, keeper, counts, warnings)
        else:
            found["complete"] = _keep_list(job, keeper, counts, warnings)
    except (GitFailed, OSError) as bad:
        warnings.append(f"what changed in the workspace could not be recorded: {bad}")
        found["complete"] = False
    if keeper.masked:
        warnings.append("the changes hold a secret of the run; it is masked in what is kept of them, so that they cannot be applied")
    found |= {"masked": keeper.masked, "complete": found["complete"] and not keeper.masked}
    if found["complete"] or job["kind"] == "shared":
        shutil.rmtree(job["state"], ignore_errors=True)  # what it was compared with is not needed any more
    return found | counts | {"artifacts": keeper.artifacts, "warnings": warnings}


def _keep_diff(job: Job, keeper: Keeper, counts: Json, warnings: list[str]) -> bool:
    diff = Diff(job)
    files = diff.files()
    warnings += diff.warnings
    counts["files_changed"] = len(files)
    if (size := sum(change.size for change in files)) > MAX_PATCH_SOURCE:
        warnings.append(f"the changes are in files of {size} bytes, more than {MAX_PATCH_SOURCE}: no patch was made of them")
        return False
    counts["insertions"], counts["deletions"] = diff.lines()
    if files:
        with Path(job["state"], PATCH).open("w+b") as file:
            diff.write_patch(file)
            file.seek(0)
            keeper.keep(_named(job, PATCH), file, "text/x-diff")
    if job.get("last", True):
        _keep_new(job, keeper, [change for change in files if change.new and stat.S_ISREG(change.mode)], warnings)
    return not diff.incomplete


def _keep_new(job: Job, keeper: Keeper, files: list[Change], warnings: list[str]) -> None:
    left, skipped = MAX_NEW_BYTES, 0
    known = set(job.get("skip") or [])
    for number, change in enumerate(files):
        if change.name in known:
            continue
        if number >= MAX_NEW_FILES or change.size > min(left, MAX_NEW_FILE_BYTES):
            skipped += 1
            continue
        left -= change.size
        try:
            descriptor = os.open(os.path.join(job["folder"], change.name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # noqa: PTH118
        except OSError:  # it is in the patch
            skipped += 1
            continue
        with os.fdopen(descriptor, "rb") as file:
            keeper.keep(change.name, file)
    if skipped:
        bounds = f"{MAX_NEW_FILES} files of at most {MAX_NEW_FILE_BYTES >> 20} MiB, {MAX_NEW_BYTES >> 20} MiB in all"
        warnings.append(f"{skipped} new files are in {PATCH} only: {bounds} are kept one by one")


def _named(job: Job, name: str) -> str:
    """The artifact's name; what an attempt before the last one leaves has its number in it."""
    stem, _, kind = name.rpartition(".")
    return name if job.get("last", True) else f"{stem}.{job.get('attempt', 1)}.{kind}"


def _keep_commits(job: Job, keeper: Keeper, commits: list[Json]) -> None:
    path = Path(job["state"], COMMITS)
    path.write_text(json.dumps(commits, indent=1) + "\n", encoding="ascii")
    with path.open("rb") as file:
        keeper.keep(_named(job, COMMITS), file, "application/json")
    if job["kind"] != "temp_copy":  # else they are in no other repository
        return
    bundle = Path(job["state"], BUNDLE)
    Git(git_dir=job["heads"])("bundle", "create", "--quiet", str(bundle), "HEAD", *([f"^{job['commit']}"] if job.get("commit") else []))
    with bundle.open("rb") as file:
        keeper.keep(_named(job, BUNDLE), file, "application/x-git-bundle")


def _keep_list(job: Job, keeper: Keeper, counts: Json, warnings: list[str]) -> bool:
    """Without git: which files changed. Only when none did is everything kept."""
    before = Path(job["state"], "before.json")
    if not before.exists():
        return False
    try:
        found = changes(load(before), listing(job["folder"], os.path.realpath(job["store"])))
    except TooMany as bad:
        warnings.append(f"what changed in it is not known: {bad}")
        return False
    counts["files_changed"] = len(found)
    if found and job.get("last", True):
        path = Path(job["state"], FILES)
        path.write_text(json.dumps({shown_name(name): how for name, how in found.items()}, indent=1) + "\n", encoding="ascii")
        with path.open("rb") as file:
            keeper.keep(FILES, file, "application/json")
    return not found


__all__ = ["BUNDLE", "COMMITS", "FILES", "PATCH", "Change", "Diff", "Keeper", "collect"]
