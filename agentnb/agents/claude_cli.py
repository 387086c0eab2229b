"""Where the claude command line is, and what it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from agentnb.errors import RuntimeUnavailable

#: Names the program to use instead of the one that is found: a path, or a name on the PATH.
VARIABLE = "AGENTNB_CLAUDE"
_HOW = (
    "install it with `pip install 'agentnb[claude]'` (which brings the program, 170 MB) or `npm install -g @anthropic-ai/claude-code`, "
    f"or set {VARIABLE} to its path"
)
_VERSION_S = 10.0


def find(env: Mapping[str, str] | None = None) -> str:
    """The program's path: AGENTNB_CLAUDE, else `claude` on the PATH, else the one that the `claude` extra brings.

    `env`: what the run has beside this process's environment. Raises RuntimeUnavailable with what to do.
    """
    seen = {**os.environ, **(env or {})}
    if named := seen.get(VARIABLE):
        path = shutil.which(os.path.expanduser(named), path=seen.get("PATH"))  # noqa: PTH111 - which takes text
        if path is None:
            raise RuntimeUnavailable(f"claude: {VARIABLE} names {named!r}, which is no program that can be run; correct or unset it")
        return os.path.abspath(path)  # noqa: PTH100
    if (path := shutil.which("claude", path=seen.get("PATH"))) is not None:
        return os.path.abspath(path)  # noqa: PTH100
    if (bundled := _bundled()) is not None:
        return bundled
    raise RuntimeUnavailable(f"claude: the command line is not on the PATH, and the `claude` extra is not installed; {_HOW}")


def _bundled() -> str | None:
    try:
        found = find_spec("claude_agent_sdk")
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "_bundled" / "claude"
        if os.access(path, os.X_OK):
            return str(path)
    return None


def version(program: str) -> str:
    """What the program says of its version, such as "2.1.330 (Claude Code)"; "" when it says nothing."""
    try:
        ran = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_VERSION_S, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip().partition("\n")[0] if ran.returncode == 0 else ""


def credentials(env: Mapping[str, str] | None = None) -> str:
    """By what it will be let in: "ANTHROPIC_API_KEY", "login" ...; "" when nothing is seen. No secret is read."""
    seen = {**os.environ, **(env or {})}
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
    ):
        if seen.get(name):
            return name
    home = Path(seen.get("CLAUDE_CONFIG_DIR") or Path("~/.claude").expanduser())
    return "login" if (home / ".credentials.json").is_file() or _has_account(home) else ""


def _has_account(home: Path) -> bool:
    for file in (home / ".claude.json", home.with_name(".claude.json")):
        try:
            if "oauthAccount" in json.loads(file.read_bytes()):
                return True
        except (OSError, ValueError, TypeError):
            continue
    return False
