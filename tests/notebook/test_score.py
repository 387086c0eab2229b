"""Scores: columns by a Python function or by another agent, and which prompt is best, at what cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentnb as nb
from agentnb.notebook.scoring import _read

Make = Callable[..., nb.Session]


@pytest.mark.model
@pytest.mark.timeout(180)
def test_which_prompt_is_best_at_what_cost_is_five_lines(session: nb.Session) -> None:
    prompts = nb.grid(prompt=["Say yes.", "List three colours."])
    group = session.map(nb.LocalModel(max_tokens=16, seed=1, temperature=0), prompts)
    scores = nb.score(group, nb.LocalModel("Rate this answer from 1 to 5.\n{{output}}\nRating:", max_tokens=8, seed=1, temperature=0))
    best = nb.compare(scores, by="param.prompt", metric="score")
    cost = nb.compare(scores, by="param.prompt", metric="output_tokens")

    assert best.index.tolist() == ["Say yes.", "List three colours."]
    assert (cost["mean"] > 0).all()
    assert scores["score"].dtype == "Float64"
    judged = session.runs_df().set_index("id").loc[scores["score_run"].tolist()]
    assert judged["param.run"].tolist() == scores["id"].tolist()


def test_a_python_judge_makes_it_five_lines_too(session: nb.Session) -> None:
    def answer(ctx: nb.RunContext, prompt: str) -> str:
        ctx.usage(output_tokens=len(prompt), cost_usd=0.01 * len(prompt))
        return prompt.upper()

    group = session.map(answer, nb.grid(prompt=["short", "rather long"]), repeats=2)
    scores = nb.score(group, lambda run: len(run.output))
    best = nb.compare(scores, by="param.prompt", metric="score")
    cost = nb.compare(scores, by="param.prompt", metric="cost_usd")

    assert best["median"].tolist() == [5.0, 11.0]
    assert cost["median"].tolist() == pytest.approx([0.05, 0.11])


@pytest.fixture
def numbers(session: nb.Session) -> nb.RunGroup:
    """Runs that print 3, fail, and print 2."""
    return session.map(nb.Shell("echo {{n}}; [ {{n}} != 1 ]"), [{"n": 3}, {"n": 1}, {"n": 2}])


def test_failed_runs_are_not_judged_and_every_row_keeps_its_place(numbers: nb.RunGroup) -> None:
    judged: list[str] = []

    def judge(run: nb.RunHandle) -> int:
        judged.append(run.id)
        return int(run.stdout) * 10

    scores = nb.score(numbers, judge, name="times_ten")
    plain = numbers.df()
    pd.testing.assert_frame_equal(scores[plain.columns.tolist()], plain)
    assert scores["times_ten"].tolist() == [30.0, pd.NA, 20.0]
    assert scores["times_ten_error"].isna().all()
    assert judged == [numbers[0].id, numbers[2].id]
    assert list(scores.columns[-2:]) == ["times_ten", "times_ten_error"]


def test_a_judge_that_raises_costs_only_its_own_row(numbers: nb.RunGroup) -> None:
    scores = nb.score(numbers, lambda run: 1 / (int(run.stdout) - 3))
    assert scores["score"].tolist() == [pd.NA, pd.NA, -1.0]
    assert scores["score_error"].tolist() == ["ZeroDivisionError: division by zero", pd.NA, pd.NA]


@pytest.mark.parametrize(
    ("verdict", "column", "dtype", "first"),
    [
        (True, "score", "Float64", 1.0),
        (np.float32(0.5), "score", "Float64", 0.5),
        (np.int64(4), "score", "Float64", 4.0),
        ("good", "score", "string", "good"),
        ({"score": 4, "why": "short"}, "score", "Float64", 4.0),
        ({"score": 4, "why": "short"}, "score.why", "string", "short"),
        ({"a": {"b": [1]}}, "score.a", "string", '{"b": [1]}'),
        ({"a": None, "b": 2}, "score.b", "Float64", 2.0),
    ],
)
def test_a_verdict_is_a_number_a_text_or_columns(numbers: nb.RunGroup, verdict: object, column: str, dtype: str, first: object) -> None:
    scores = nb.score(numbers, lambda _: verdict)
    assert scores[column].dtype == dtype
    assert scores[column].iloc[0] == first
    assert pd.isna(scores[column].iloc[1])


@pytest.mark.parametrize(("verdict", "words"), [(None, "gave nothing"), ([1, 2], "is a list"), (object(), "verdict")])
def test_what_is_no_verdict_is_an_error_of_its_row(numbers: nb.RunGroup, verdict: object, words: str) -> None:
    scores = nb.score(numbers, lambda _: verdict)
    assert scores["score"].isna().all()
    assert words in scores["score_error"].iloc[0]


def test_not_a_number_is_no_score(numbers: nb.RunGroup) -> None:
    assert nb.score(numbers, lambda _: float("nan"))["score"].isna().all()


def test_a_text_among_numbers_is_no_score_and_is_shown(numbers: nb.RunGroup) -> None:
    scores = nb.score(numbers, lambda run: 1 if "3" in run.stdout else "hm")
    assert scores["score"].tolist() == [1.0, pd.NA, pd.NA]
    assert scores["score_error"].iloc[2] == "score: no number in 'hm'"


def test_a_target_judges_by_templates_and_its_runs_are_in_the_history(numbers: nb.RunGroup, session: nb.Session) -> None:
    scores = nb.score(numbers, nb.Shell("echo Score: {{output}}/{{param.n}}"), max_parallel=1, tags={"role": "judge"})
    assert scores["score"].tolist() == [3.0, pd.NA, 2.0]
    runs = session.runs_df().set_index("id")
    judges = runs.loc[scores["score_run"].dropna().tolist()]
    assert judges["param.run"].tolist() == [numbers[0].id, numbers[2].id]
    assert set(judges["tag.role"]) == {"judge"}
    assert judges["name"].iloc[0].startswith("score of ")


def test_a_function_as_a_target_is_a_run_that_can_be_killed(numbers: nb.RunGroup) -> None:
    def judge(output: str, param: dict[str, int]) -> float:
        if output == "2":
            import time

            time.sleep(600)
        return float(output) + param["n"]

    scores = nb.score(numbers, nb.Python(judge), timeout=3)
    assert scores["score"].tolist() == [6.0, pd.NA, pd.NA]
    assert scores["score_error"].iloc[2].startswith("the judge's run timeout: it was still running after 3 s")


def test_an_async_function_judges_as_a_run(numbers: nb.RunGroup) -> None:
    async def judge(output: str) -> int:
        return int(output)

    assert nb.score(numbers, judge)["score"].tolist() == [3.0, pd.NA, 2.0]


def test_hostile_output_stays_one_word_for_a_shell_that_judges(session: nb.Session) -> None:
    group = session.map(nb.Shell("printf %s {{text}}"), [{"text": "$(touch pwned); echo 9"}])
    scores = nb.score(group, nb.Shell("printf %s {{output}} | wc -c"))
    assert scores["score"].tolist() == [22.0]
    assert not pd.isna(scores["score"]).any()
    from pathlib import Path

    assert not Path("pwned").exists()


def test_no_rows_give_no_rows(session: nb.Session) -> None:
    group = session.map(nb.Shell("echo {{n}}"), [])
    scores = nb.score(group, lambda _: 1)
    assert scores.shape[0] == 0
    assert scores["score"].dtype == "Float64"
    assert nb.score(group, nb.Shell("echo {{output}}"))["score_run"].dtype == "string"


def test_scores_stand_beside_the_rows_of_the_dataframe_that_was_mapped(session: nb.Session) -> None:
    df = pd.DataFrame({"word": ["x", "y", "z"], "number of": [1.5, np.nan, 2]}, index=[7, 7, 0])
    scores = nb.score(session.map(nb.Shell("echo {{ word }}"), df), lambda run: len(run.stdout.strip()))
    assert scores.index.tolist() == [7, 7, 0]
    assert scores["word"].iloc[1] == "y"
    assert scores["score"].iloc[:2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g: nb.score([1], len), "is no group"),
        (lambda g: nb.score(g, "good"), "is no judge"),
        (lambda g: nb.score(g, nb.Shell), "is no judge"),
        (lambda g: nb.score(g, len, name=""), "something in it"),
        (lambda g: nb.score(g, len, name="status"), "has a column 'status' already"),
        (lambda g: nb.score(g, len, timeout=3), r"write nb.Python\(judge\)"),
        (lambda g: nb.score(g, len, max_parallel=3), r"write nb.Python\(judge\)"),
        (lambda g: nb.score(g, nb.Shell("echo {{outptu}}")), "outptu"),
    ],
)
def test_a_mistake_is_named(numbers: nb.RunGroup, call: Callable[[nb.RunGroup], Any], words: str) -> None:
    with pytest.raises(nb.ConfigError, match=words):
        call(numbers)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        (" 3.5\n", 3.5),
        ("Score: 8/10", 8.0),
        ("-2", -2),
        ("I give it a 7.", 7.0),
        ('{"score": 3}', {"score": 3}),
        ('Here:\n```json\n{"score": 3}\n```\nDone.', {"score": 3}),
        ("good", "good"),
        ("GPT-4 wins", "GPT-4 wins"),
        ("v1.2", "v1.2"),
        ("", ""),
        ("1e3 points", 1000.0),
    ],
)
def test_what_a_model_says_is_read_as_a_number_json_or_text(text: str, value: object) -> None:
    assert _read(text) == value


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert isinstance(_read(text), int | float | dict | str)
