"""The process that makes, reads and removes a workspace: ``python -I -S workspace_child.py SYS_PATH...`` (see workspace.py)."""

import json
import os
import sys


def main() -> None:
    """Read the job from the payload, do it, write one report to the channel."""
    sys.path[:] = sys.argv[1:]
    sys.setrecursionlimit(10_000)  # folders may be in folders as deep as a path is long
    from agentnb.engine import changes, making
    from agentnb.engine.git import GitFailed
    from agentnb.errors import StoreError

    with open(int(os.environ.pop("AGENTNB_PAYLOAD_FD")), "rb") as file:  # noqa: PTH123 - it has no path
        job = json.load(file)
    channel = int(os.environ.pop("AGENTNB_CHANNEL_FD"))
    os.set_inheritable(channel, False)  # noqa: FBT003 - git shall not have it
    work = {"make": making.make, "collect": changes.collect, "remove": making.remove}[job.pop("do")]
    try:
        report = work(job)
    except (making.CannotMake, GitFailed, StoreError, OSError, RecursionError) as bad:
        report = {"error": str(bad) or type(bad).__name__}
    with open(channel, "w", encoding="ascii") as file:
        file.write(json.dumps({"t": "workspace"} | report) + "\n")


if __name__ == "__main__":
    main()
