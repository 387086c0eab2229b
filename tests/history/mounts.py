"""A file system of our own, mounted by the kernel's FUSE: what a folder holds, with the faults that a test asks for.

It speaks the protocol of /dev/fuse itself, in a process of its own (memory that is shared with it faults in that process's name). When
that process ends, so does the mount's life: whoever waits on it gets an error. Commands go to its stdin, answers come from its stdout.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# Operations, as in linux/fuse.h.
LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME = 1, 2, 3, 4, 9, 10, 11, 12
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29
GETLK, SETLK, SETLKW, CREATE, INTERRUPT, BATCH_FORGET, RENAME2 = 31, 32, 33, 35, 36, 42, 45
POSIX_LOCKS, FLOCK_LOCKS, DIRECT_IO = 1 << 1, 1 << 10, 1
MAJOR, MINOR, MAX_WRITE = 7, 31, 1 << 17
MNT_DETACH = 2
#: A test that fails must not leave processes that nothing can end.
HELD_S = 60.0
HEAD = struct.Struct("<IIQQIIIHH")
REPLY = struct.Struct("<IiQ")


class Files:
    """Answers of the file system over `root`. `faults`: see `mounted`."""

    def __init__(self, device: int, root: str, faults: dict[str, Any]) -> None:
        """Nothing is known yet but the root."""
        self.device = device
        self.faults = faults
        self.paths = {1: root}
        self.nodes = {root: 1}
        self.syncs = self.waiting = 0
        self.released = threading.Event()
        self.released.set()

    def reply(self, unique: int, body: bytes = b"", error: int = 0) -> None:
        """Answer one request."""
        with suppress(FileNotFoundError):  # it was interrupted
            os.write(self.device, REPLY.pack(REPLY.size + len(body), -error, unique) + body)

    def serve(self) -> None:
        """Answer until the mount is gone."""
        while True:
            try:
                request = os.read(self.device, MAX_WRITE + 4096)
            except OSError as bad:
                if bad.errno in {errno.EINTR, errno.ENOENT}:
                    continue
                return
            _, operation, unique, node, *_ = HEAD.unpack_from(request)
            if operation == FSYNC:  # it may take long
                threading.Thread(target=self.sync, args=(unique, request), daemon=True).start()
            elif operation not in {FORGET, BATCH_FORGET, INTERRUPT}:
                self.handle(operation, unique, node, request[HEAD.size :])

    def sync(self, unique: int, request: bytes) -> None:
        """A sync is counted, waits while it is told to, and may fail."""
        self.waiting += 1
        self.released.wait(HELD_S)
        self.waiting -= 1
        self.syncs += 1
        if self.faults.get("sync_error"):
            self.reply(unique, error=self.faults["sync_error"])
            return
        os.fsync(struct.unpack_from("<Q", request, HEAD.size)[0])
        self.reply(unique)

    def handle(self, operation: int, unique: int, node: int, body: bytes) -> None:
        """Any other request."""
        if operation == INIT:
            flags = {"all": POSIX_LOCKS | FLOCK_LOCKS, "parts": POSIX_LOCKS, "whole": FLOCK_LOCKS}[self.faults.get("which", "all")]
            flags = flags if "locks" in self.faults else 0
            self.reply(unique, struct.pack("<IIIIHHII28x", MAJOR, MINOR, 1 << 16, flags, 0, 0, MAX_WRITE, 1))
            return
        try:
            self.reply(unique, self.answer(operation, node, body))
        except OSError as bad:
            self.reply(unique, error=bad.errno or errno.EIO)

    def answer(self, operation: int, node: int, body: bytes) -> bytes:
        """What the request asks for."""
        path = self.paths[node]
        if operation in {GETLK, SETLK, SETLKW}:
            if self.faults["locks"]:
                raise OSError(self.faults["locks"], "")
            return b"" if operation != GETLK else struct.pack("<QQII", 0, 0, 2, 0)  # whoever asks gets a lock
        names = body.split(b"\0")
        if operation == LOOKUP:
            return self.entry(f"{path}/{os.fsdecode(names[0])}")
        if operation == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(os.lstat(path))
        if operation == SETATTR:
            return self.change(path, body)
        if operation == MKDIR:
            there = f"{path}/{os.fsdecode(body[8:].split(bytes(1))[0])}"
            os.mkdir(there, struct.unpack_from("<I", body)[0])
            return self.entry(there)
        if operation in {UNLINK, RMDIR}:
            there = f"{path}/{os.fsdecode(names[0])}"
            (os.unlink if operation == UNLINK else os.rmdir)(there)
            self.nodes.pop(there, None)
            return b""
        if operation in {RENAME, RENAME2}:
            (new,) = struct.unpack_from("<Q", body)
            old, to = body[16 if operation == RENAME2 else 8 :].split(b"\0")[:2]
            self.rename(f"{path}/{os.fsdecode(old)}", f"{self.paths[new]}/{os.fsdecode(to)}")
            return b""
        return self.opened(operation, path, body)

    def opened(self, operation: int, path: str, body: bytes) -> bytes:
        """Requests about open files."""
        kind = DIRECT_IO if self.faults.get("unmappable") else 0
        if operation == CREATE:
            flags, mode = struct.unpack_from("<II", body)
            there = f"{path}/{os.fsdecode(body[16:].split(bytes(1))[0])}"
            handle = os.open(there, flags & ~os.O_NOFOLLOW | os.O_CREAT, mode)
            return self.entry(there) + struct.pack("<QII", handle, kind, 0)
        if operation == OPEN:
            (flags,) = struct.unpack_from("<I", body)
            return struct.pack("<QII", os.open(path, flags & ~(os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)), kind, 0)
        if operation == OPENDIR:
            return struct.pack("<QII", 0, 0, 0)
        if operation == READDIR:
            return self.listing(path, *struct.unpack_from("<QQI", body)[1:])
        if operation == STATFS:
            return struct.pack("<QQQQQIIII24x", 1 << 30, 1 << 29, 1 << 29, 1 << 20, 1 << 19, 4096, 255, 4096, 0)
        handle, offset, size = struct.unpack_from("<QQI", body.ljust(20, b"\0"))
        if operation == READ:
            return os.pread(handle, size, offset)
        if operation == WRITE:
            return struct.pack("<II", os.pwrite(handle, body[40 : 40 + size], offset), 0)
        if operation == RELEASE:
            os.close(handle)
        elif operation not in {FLUSH, RELEASEDIR}:
            raise OSError(errno.ENOSYS, "")
        return b""

    def change(self, path: str, body: bytes) -> bytes:
        """Set mode or size."""
        valid, _, _, size = struct.unpack_from("<IIQQ", body)
        if valid & 1:
            os.chmod(path, struct.unpack_from("<I", body, 68)[0] & 0o7777)
        if valid & 8:
            os.truncate(path, size)
        return struct.pack("<QII", 0, 0, 0) + self.attributes(os.lstat(path))

    def rename(self, old: str, new: str) -> None:
        """Move, with what is known of it."""
        os.rename(old, new)
        self.nodes.pop(new, None)
        if (node := self.nodes.pop(old, None)) is not None:
            self.nodes[new], self.paths[node] = node, new

    def entry(self, path: str) -> bytes:
        """A name that was found."""
        found = os.lstat(path)
        node = self.nodes.setdefault(path, len(self.paths) + 1)
        self.paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self.attributes(found)

    @staticmethod
    def attributes(found: os.stat_result) -> bytes:
        """struct fuse_attr."""
        times = [int(found.st_atime), int(found.st_mtime), int(found.st_ctime)]
        owner = [found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0]
        return struct.pack("<QQQQQQIIIIIIIIII", found.st_ino, found.st_size, found.st_blocks, *times, 0, 0, 0, *owner)

    @staticmethod
    def listing(path: str, offset: int, size: int) -> bytes:
        """Entries of a folder from number `offset`, in at most `size` bytes."""
        found = b""
        for number, name in enumerate(sorted(os.listdir(path))[offset:], offset + 1):
            kind = stat.S_IFMT(os.lstat(f"{path}/{name}").st_mode) >> 12
            raw = os.fsencode(name)
            one = struct.pack("<QQII", number, number, len(raw), kind) + raw
            one += bytes(-len(one) % 8)
            if len(found) + len(one) > size:
                break
            found += one
        return found


def serve(root: str, point: str, faults: dict[str, Any]) -> None:
    """Mount and serve; commands on stdin: "hold" and "release" syncs; any line is answered with how many were done and how many wait."""
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if libc.mount(b"agentnb-test", os.fsencode(point), b"fuse", 0, options.encode()):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    files = Files(device, root, faults)
    threading.Thread(target=files.serve, daemon=True).start()
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command = line.strip()
        if command == "hold":
            files.released.clear()
        elif command == "release":
            files.released.set()
        sys.stdout.write(f"{files.syncs} {files.waiting}\n")
        sys.stdout.flush()
    os._exit(0)  # whatever waits below gets an error


class Mount:
    """A mounted folder."""

    def __init__(self, point: Path, server: subprocess.Popen[str]) -> None:
        """`server` serves it."""
        self.point = point
        self._server = server

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let syncs wait meanwhile, HELD_S at the longest."""
        self._tell("hold")
        try:
            yield
        finally:
            self._tell("release")

    @property
    def syncs(self) -> int:
        """How many were done so far."""
        return self._tell("")[0]

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return self._tell("")[1]

    def _tell(self, command: str) -> tuple[int, int]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{command}\n")
        self._server.stdin.flush()
        done, waiting = self._server.stdout.readline().split()
        return int(done), int(waiting)


@contextmanager
def mounted(folder: Path, **faults: Any) -> Iterator[Mount]:
    """What ``folder/files`` holds, at ``folder/mount``; the test is skipped where nothing can be mounted.

    `locks`: the errno that locks fail with, or 0: each is given, whoever holds one. Without it the kernel keeps the locks.
    `which`: of locks that means those of "parts" of files, of "whole" ones, or "all".
    `unmappable`: no memory can be shared. `sync_error`: the errno that syncs fail with.
    """
    for name in ("files", "mount"):
        (folder / name).mkdir(parents=True)
    point = folder / "mount"
    argv = [sys.executable, __file__, str(folder / "files"), str(point), json.dumps(faults)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        try:
            if not server.stdout.readline():
                pytest.skip(f"no file system of our own can be mounted here: {server.stderr.read().strip()[-200:]}")
            yield Mount(point, server)
        finally:
            server.kill()
            ctypes.CDLL(None).umount2(os.fsencode(point), MNT_DETACH)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
