"""The process that searches a run's output, run by path: ``python -I -S check_child.py SYS_PATH...`` (see checking.py)."""

import json
import os
import sys


def main() -> None:
    """Read the job from the payload, write what was found to the channel."""
    sys.path[:] = sys.argv[1:]
    from agentnb.engine import checks
    from agentnb.formats import without_iri

    without_iri()

    with open(int(os.environ["AGENTNB_PAYLOAD_FD"]), "rb") as file:  # noqa: PTH123 - it has no path
        job = json.load(file)
    with open(int(os.environ["AGENTNB_CHANNEL_FD"]), "w", encoding="ascii") as channel:  # noqa: PTH123
        channel.write(checks.report(job) + "\n")


if __name__ == "__main__":
    main()
