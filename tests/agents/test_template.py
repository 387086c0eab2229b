"""Templates of text and values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentnb.agents.template import render, render_value, variables
from agentnb.errors import TemplateError


def text(template: str, **params: object) -> str:
    return render(template, params, shell=False, what="prompt")


@pytest.mark.parametrize(
    "line",
    [
        "${x} ${#x} ${x%%y} ${x#y}",
        "awk '{print $1}' f",
        "awk '{if(x){print}}'",
        "echo $((1+2))",
        "curl -w '%{http_code}' u",
        "a {} b } }} #}",
        "# {# x",
    ],
)
@pytest.mark.parametrize("shell", [True, False])
def test_shell_and_awk_syntax_passes_untouched(line: str, shell: bool) -> None:
    assert render(line, {}, shell=shell, what="line") == line
    assert render(line + " {% if true %}x{% endif %}", {}, shell=shell, what="line") == line + " x"


def test_raw_blocks_keep_braces() -> None:
    line = "docker ps --format {% raw %}'{{.Names}}'{% endraw %} -f name={{name}}"
    assert render(line, {"name": "a b"}, shell=True, what="line") == "docker ps --format '{{.Names}}' -f name='a b'"


def test_go_templates_are_told_about_raw_blocks() -> None:
    with pytest.raises(TemplateError, match=r"command 7: line 2: .*\{% raw %\}"):
        render("true\ndocker ps --format '{{.Names}}'", {}, shell=True, what="command 7")


def test_a_missing_value_names_itself_the_template_and_what_there_is() -> None:
    with pytest.raises(TemplateError) as caught:
        text("{{pth}}", path=1, other=2)
    for part in ("prompt", "'pth'", "path, other", "did you mean 'path'?"):
        assert part in str(caught.value)


def test_a_missing_part_of_a_value_is_named_with_its_neighbours() -> None:
    with pytest.raises(TemplateError, match=r"no 'pth' in path, x; did you mean 'path'"):
        text("{{input.pth}}", input={"path": 1, "x": 2})
    assert text("{{input.path}} {{steps.w.output[0]}}", input={"path": "p"}, steps={"w": {"output": ["o"]}}) == "p o"


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_missing_cell_of_a_frame_is_an_error_not_the_word_nan(value: object) -> None:
    with pytest.raises(TemplateError, match="missing"):
        text("Document {{path}}", path=value)
    assert text("{{ path | default('x', true) if path == path else 'y' }}", path=value) in {"x", "y"}


@given(st.text())
def test_values_are_never_expanded_again(value: str) -> None:
    params = {"x": value + "{{y}}{% raw %}{{ 1/0 }}", "y": "NO"}
    assert render("a {{x}} b", params, shell=False, what="t") == f"a {params['x']} b"


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_exactly_one_template_keeps_the_value_and_its_type(value: object) -> None:
    assert render_value("{{ x }}", {"x": value}) is value
    assert render_value("{{ y.x }}", {"y": {"x": value}}) is value


def test_a_template_with_text_around_it_is_text() -> None:
    assert render_value("{{ x }}!", {"x": 1}) == "1!"
    assert render_value("{{ x }}{{ x }}", {"x": 1}) == "11"
    assert render_value("plain", {}) == "plain"
    with pytest.raises(TemplateError, match="no value 'z'"):
        render_value("{{ z }}", {"x": 1})


def test_variables_are_what_a_template_takes_from_outside() -> None:
    assert variables("{{a}} {% for b in c %}{{b}}{{ range(3) }}{% endfor %}{% set d = 1 %}{{d}} ${e}") == {"a", "c"}
    assert variables("no templates") == set()
    with pytest.raises(TemplateError):
        variables("{{")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ x.__init__.__globals__ }}",
        "{{ 'a' * 10**10 }}",
        "{{ 10**10000000 }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% include 'x' %}",
        "{{ x.append(1) }}",
        "{{ x }",
        "{% if %}",
        "{{ x | nofilter }}",
        "{{ 1 / 0 }}",
        "{{ range }}",
        "{{" + "(" * 5000 + ")" * 5000 + "}}",
        "a\0{{x}}",
    ],
)
@pytest.mark.parametrize("shell", [True, False])
def test_whatever_is_wrong_with_a_template_is_a_template_error(template: str, shell: bool) -> None:
    with pytest.raises(TemplateError, match="what it is"):
        render(template, {"x": [1]}, shell=shell, what="what it is")


@pytest.mark.parametrize(
    "template",
    [
        "{% set y %}{{x}}{% endset %}{{y}}",
        "{% filter upper %}{{x}}{% endfilter %}",
        "{% macro m() %}{{x}}{% endmacro %}{{m()}}",
        "{% for a in [x] recursive %}{{a}}{% endfor %}",
    ],
)
def test_blocks_that_capture_output_work_in_text_and_are_refused_in_shell_lines(template: str) -> None:
    assert text(template, x="a b").lower() == "a b"
    with pytest.raises(TemplateError, match="shell line can hold"):
        render(template, {"x": "a b"}, shell=True, what="line")


def test_filters_work_on_values_before_they_are_quoted() -> None:
    assert render("{{ x | upper }} {{ x ~ '!' }} {{ (x | raw) ~ ';' }}", {"x": "a b"}, shell=True, what="t") == "'A B' 'a b!' 'a b;'"
