"""Start a supervisor: ``python -I -S agentnb/engine/__main__.py PACKAGE FD KIND SITE...``, where FD is one end of a socket pair.

KIND is ``attached`` (it ends with its client) or ``detached`` (it outlives it, as a process that is no child of it).

It is run isolated and without site-packages: it starts fast, stays small, and nothing in the user's environment can break it. SITE is
looked at only for what it is faster with (compact.py), and for the few optional imports, such as jsonschema.
"""

import gc
import os
import signal
import sys


def main() -> None:
    """Serve the client at the other end of descriptor FD until it is gone."""
    package, fd, kind, *extra = sys.argv[1:]
    if kind == "detached" and os.fork():
        os._exit(0)  # who started this process waits for it, and never for what goes on
    sys.path[:0] = [package]
    sys.path += extra
    for signo in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signo, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who ignores it cannot wait for children, and what started the notebook may have done so

    import asyncio
    import socket

    from agentnb.engine.supervisor import Supervisor

    os.set_inheritable(int(fd), False)  # noqa: FBT003 - a command that held it would hide this process's end from the client

    async def serve() -> None:
        supervisor = Supervisor(socket.socket(fileno=int(fd)), detached=kind == "detached")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stop)
        await supervisor.serve()
        sys.stderr.flush()
        os._exit(0)  # all is written; a thread that hangs in a file system shall not hold this process

    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # nearly everything here goes by itself: there are few cycles to look for
    asyncio.run(serve())


if __name__ == "__main__":
    main()
