"""Makes the recordings of notebooks/02_claude.ipynb: the real claude command line, answered by scripts from a server on loopback.

Usage: python tests/agents/record_claude.py (in a folder that is no part of what is recorded: /tmp/project is made for that)
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import agentnb as nb
from tests.agents.messages_server import Answer, Json, prompt_in, results_in, serving, text, tool

PROJECT, CONFIG, SCRATCH = Path("/tmp/project"), Path("/tmp/claude-config"), Path("/tmp/claude-scratch")
RECORDED = Path(__file__).parents[2] / "notebooks" / "recorded"
FILES = {
    "README.md": "# shapes\n\nAreas of plane figures, without dependencies.\n\n"
    "`shapes.py` has a function for each figure; `words.py` prints a report.\nNumbers are floats, lengths in metres.\n",
    "shapes.py": "from math import pi\n\n\ndef circle(radius):\n    return pi * radius**2\n\n\ndef square(side):\n    return side * side\n",
    "words.py": "from shapes import circle\n\nfor radius in (1, 2, 3):\n    print(f'{radius} m: {circle(radius):.2f} m2')\n",
}
PURPOSES = {
    ("shapes.py", "haiku"): "Functions for the areas of circles and squares.",
    ("shapes.py", "sonnet"): "shapes.py computes areas of plane figures (circle and square) from their lengths in metres.",
    ("words.py", "haiku"): "Prints areas of three circles.",
    ("words.py", "sonnet"): "words.py prints a short report: the areas of circles with radius 1, 2 and 3 m, to two decimals.",
}
SCHEMA = {
    "type": "object",
    "properties": {"functions": {"type": "array", "items": {"type": "object", "properties": {"name": {}, "computes": {}}}}},
    "required": ["functions"],
}
RESET_S = 4
USAGE = {"input_tokens": 320, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 9_800}


def last_words(body: Json) -> str:
    """The text of the last message of the user."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "\n".join(block.get("text", "") for block in content)


def said(words: str, *more: Json, delay_s: float = 0.03) -> Answer:
    """An answer with token counts that go with its length."""
    return Answer(text(words), *more, delay_s=delay_s, usage=USAGE | {"output_tokens": 8 + len(words) // 4 + 60 * len(more)})


def script(body: Json, _: int) -> Answer:  # noqa: C901, PLR0911 - a script has its lines
    """What the model says, by what it was asked."""
    asked, found, path = prompt_in(body), results_in(body), str(PROJECT / "shapes.py")
    if "Shorter" in last_words(body):
        return said("shapes computes the areas of plane figures and needs nothing but Python.")
    if "Summarise README.md" in asked:
        if not found:
            return said("I will read the file first.", tool("Read", file_path=str(PROJECT / "README.md")))
        return said(
            "shapes is a small library without dependencies that computes the areas of plane figures. Each figure has a function in "
            "shapes.py, words.py prints a report, and all lengths are floats in metres."
        )
    if "Which functions" in asked:
        functions = [{"name": "circle", "computes": "the area of a circle"}, {"name": "square", "computes": "the area of a square"}]
        return said("Done.") if found else said("I know them now.", tool("StructuredOutput", 7, functions=functions))
    if "docstring" in asked:
        old, new = "def circle(radius):\n", 'def circle(radius):\n    """Area of a circle of this radius."""\n'
        if not found:
            return said("I will look at the function.", tool("Read", 2, file_path=path))
        if found[0]["tool_use_id"].endswith("2"):
            return said("Now I add the line.", tool("Edit", 3, file_path=path, old_string=old, new_string=new))
        if found[0].get("is_error"):
            return said("I was not allowed to edit shapes.py, so nothing has changed. Grant me the Edit tool and I will add the docstring.")
        return said("circle() in shapes.py now says what it returns.")
    for (name, model), words in PURPOSES.items():
        if f"what {name} is for" in asked and model in body["model"]:
            return said(words)
    return said("Hello!")


def main() -> None:
    """Record them all."""
    for folder in (PROJECT, CONFIG, SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for name, content in FILES.items():
        (PROJECT / name).write_text(content, encoding="utf-8")
    os.chdir(PROJECT)
    off = dict.fromkeys(
        ("DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"), "1"
    )
    resets = [0.0]

    def limited(body: Json, number: int) -> Answer:
        if "Say hello" not in prompt_in(body) or time.time() >= resets[0]:
            return script(body, number)
        reset = {"anthropic-ratelimit-unified-reset": str(int(resets[0])), "anthropic-ratelimit-unified-status": "rejected"}
        return Answer(status=429, headers=reset | {"anthropic-ratelimit-unified-representative-claim": "five_hour"})

    with serving(limited) as server:
        env: dict[str, Any] = off | {"ANTHROPIC_BASE_URL": server.url, "CLAUDE_CONFIG_DIR": str(CONFIG), "TMPDIR": str(SCRATCH)}
        key = {"ANTHROPIC_API_KEY": nb.Secret("no-key-at-all-0123456789")}
        with nb.Session("claude", store=SCRATCH / "store", env=env, timeout="1m", max_parallel=1) as session:
            runs = {"summary": session.claude("Summarise README.md in two sentences.", model="sonnet", tools=["Read"], env=key)}
            runs["summary"].wait()
            runs["shorter"] = runs["summary"].reply("Shorter: one sentence.")
            ask = "Add a docstring to circle() in shapes.py."
            runs["denied"] = session.claude(ask, model="sonnet", env=key)
            runs["edited"] = session.claude(ask, model="sonnet", permission_mode="acceptEdits", artifacts="*.py", env=key)
            runs["schema"] = session.claude("Which functions does shapes.py define?", model="sonnet", json_schema=SCHEMA, env=key)
            for name, model in PURPOSES:
                runs[f"purpose_{name}_{model}"] = session.claude(
                    "Say in one line what {{path}} is for.", model=model, params={"path": name, "model": model}, env=key
                )
            session.wait()
            resets[0] = int(time.time()) + RESET_S
            token = {"CLAUDE_CODE_OAUTH_TOKEN": nb.Secret("no-token-at-all-0123456789")}
            runs["limited"] = session.claude("Say hello.", model="sonnet", retry=nb.Retry(), env=token)
            session.wait()
            for name, run in runs.items():
                assert run.output is not None, (name, run.error)
                run.export(RECORDED / f"{name}.jsonl", overwrite=True)
    for folder in (PROJECT, CONFIG, SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
