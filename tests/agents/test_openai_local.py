"""A server by URL, for real: the one that the local model opens on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentnb as nb
from agentnb.agents import model_file
from agentnb.agents.local import local_work
from agentnb.prompts import LocalModel
from tests.agents.children import Child

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(model_file.missing() is not None, reason=str(model_file.missing())),
]


@pytest.fixture
def server() -> Iterator[dict[str, Any]]:
    """The address of a model server."""
    service = local_work(LocalModel("hi", shared=True, threads=1))["service"]
    child = Child.start({"argv": service["argv"], "payload": service["payload"]})
    try:
        yield child.until("ready")["address"]
    finally:
        child.process.kill()
        child.wait()


@pytest.fixture
def session(store: Path) -> Iterator[nb.Session]:
    with nb.Session("openai", store=store, max_parallel=4) as session:
        yield session


def target(server: dict[str, Any], prompt: str = "{{prompt}}", **options: Any) -> nb.OpenAICompatible:
    fields = {"api_key": nb.Secret(server["key"]), "max_tokens": 12, "temperature": 0.0} | options
    return nb.OpenAICompatible(server["url"], "smollm2", prompt, **fields)


def test_it_answers_as_the_local_model_does(server: dict[str, Any], session: nb.Session) -> None:
    run = session.launch(target(server, "Name three uses of SQLite", system="One line."))
    own = session.local("Name three uses of SQLite", system="One line.", max_tokens=12, temperature=0, top_p=0.95)
    session.wait()
    assert run.error is None
    assert run.output == own.output == run.stdout.strip() != ""
    frame = session.runs_df()
    assert list(frame["output_tokens"]) == [12, 12]
    assert frame["input_tokens"].nunique() == 1
    assert (frame["tokens_per_s"] > 1).all()
    assert set(frame["model"]) == {"smollm2", model_file.FILE_NAME}


def test_a_schema_holds_and_json_that_is_cut_fails(server: dict[str, Any], session: nb.Session) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}
    good = session.launch(target(server, "Ann is 30.", json_schema=schema, max_tokens=60))
    cut = session.launch(target(server, "Ann is 30.", json_schema=schema, max_tokens=3))
    session.wait()
    assert isinstance(good.output["age"], int)
    assert cut.error is not None
    assert (cut.error.kind, "cut at max_tokens=3" in cut.error.message) == ("validation_error", True)


def test_seeds_and_temperatures_count_and_a_conversation_goes_on(server: dict[str, Any], session: nb.Session) -> None:
    group = session.map(target(server, "Invent a name.", temperature=1.5), [{"seed": 1}, {"seed": 1}, {"seed": 2}])
    group.wait()
    first, again, other = (run.output for run in group)
    assert first == again != other
    reply = group[0].reply("Another one.")
    assert reply.wait().status == "completed"


def test_a_wrong_key_and_a_prompt_that_is_too_long_are_clear(server: dict[str, Any], session: nb.Session) -> None:
    wrong = session.launch(target(server, "Hi", api_key=nb.Secret("not-this-one")))
    long = session.launch(target(server, "many words " * 5000))
    session.wait()
    assert wrong.error is not None
    assert "answered 401" in wrong.error.message
    assert long.error is not None
    assert (long.error.kind, "too long" in long.error.message) == ("invalid_config", True)
