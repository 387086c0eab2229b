"""YAML with places: what is read, what is refused where, and that nothing else can happen."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentnb.agents.marked_nodes import MAX_DEPTH, Mark, plain_node
from agentnb.agents.marked_yaml import MAX_BYTES, MAX_NODES, parse


def data(text: str | bytes) -> object:
    node, complaints = parse(text)
    assert node is not None
    assert complaints == []
    return node.data()


def complaint(text: str | bytes) -> str:
    """The first one, as ``line:column: message``."""
    _, complaints = parse(text)
    mark, message = complaints[0]
    return f"{mark.line}:{mark.column}: {message}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("FALSE", False), ("~", None), ("", None), ("null", None), ("12", 12), ("-0.5", -0.5), (".5", 0.5), ("1e3", 1000.0),
        ("+3", 3),
        # YAML 1.1 reads these as something else than the text they are
        ("yes", "yes"), ("off", "off"), ("on", "on"), ("n", "n"), ("010", "010"), ("0o17", "0o17"), ("0x1F", "0x1F"), ("0b1", "0b1"),
        ("1_000", "1_000"), ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("2026-01-31", "2026-01-31"),
        ("2026-01-31 09:00:00Z", "2026-01-31 09:00:00Z"), (".inf", ".inf"), (".nan", ".nan"), ("=", "="), ("1.2.3", "1.2.3"),
        ("'5'", "5"), ('"true"', "true"), ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!float 5", 5), ("|\n  a\n  b\n", "a\nb\n"), (">-\n  a\n  b\n", "a b"), ("12345678901234567890123", 12345678901234567890123),
    ],
)  # fmt: skip
def test_scalars_are_what_yaml_1_2_and_json_agree_on(text: str, value: object) -> None:
    found = data(f"a: {text}")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_keys_are_text_and_numbers_keep_how_they_are_written() -> None:
    assert data("1e999: 1\n? 5\n: 2") == {"1e999": 1, "5": 2}
    node, _ = parse("on: 1\n1: x\n~: y\ntrue: z\nenv: {V: 1.10, B: true, N: ~}\nargv: [sleep, 1.50]\ninput: {env: {V: 1.10}}\n")
    assert node is not None
    assert list(node.data()) == ["on", "1", "~", "true", "env", "argv", "input"]
    found = node.data({"env", "argv"}, {"input"})
    assert found["env"] == {"V": "1.10", "B": "true", "N": None}
    assert found["argv"] == ["sleep", "1.50"]
    assert found["input"] == {"env": {"V": 1.1}}


def test_anchors_aliases_and_merge_keys_work_and_what_a_mapping_says_itself_wins() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a, {z: 4, x: 9}]}\nd: *a\ne: {'<<': 1}\n"
    assert data(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2, "z": 4},
        "d": {"x": 1, "y": 2},
        "e": {"<<": 1},
    }


def test_every_value_and_key_knows_its_place() -> None:
    node, _ = parse("\ufeffa:\n  - b: 1\n    c: [x, 'ü', y]\n")
    assert node is not None
    assert (node.at(("a", 0, "b")), node.at(("a", 0, "b"), key=True)) == (Mark(2, 8), Mark(2, 5))
    assert node.at(("a", 0, "c", 2)) == Mark(3, 17)
    assert node.at(("a", 5, "nobody")) == Mark(2, 3)  # as far as it leads
    assert node.known(("a", "the union's name", 0, "c", "tuple", 1)) == ("a", 0, "c", 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "3:1: 'a' is given twice; the first is in line 1"),
        ("a:\n\t- x", "2:1: a tab cannot indent in YAML; use spaces"),
        ("a: b: c", "1:5: a ': ' is not possible here; put a text that contains one into quotes"),
        ("a: {{input.x}}", "1:5: a key is a text, not a list or a mapping; a template is put into quotes"),
        ("a: @x", "1:4: it is no YAML: found character '@' that cannot start any token; put the text into quotes"),
        ('a: "\\ud800"', "1:4: it has half of a character (\\ud800 to \\udfff) without the other half"),
        ("a: 'x", "1:6: it is no YAML: found unexpected end of stream (while scanning a quoted scalar, line 1)"),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here; one file has one spec"),
        ("a: *b", "1:4: there is no anchor &b before this alias; write what is meant"),
        ("a: &a [*a]", "1:8: the alias *a is inside of what it stands for; it would never end"),
        ("a: &a {<<: *a}", "1:12: the alias *a is inside of what it stands for; it would never end"),
        ("a: {<<: 3}", "1:5: <<: it merges a mapping, or a list of mappings, into this one; this is none"),
        ("a: !!python/object/apply:os.system [ls]", "1:4: the tag !!python/object/apply:os.system is not read; leave it out"),
        ("a: !!binary aGk=", "1:4: the tag !!binary is not read here; leave it out"),
        ("a: !mine x", "1:4: the tag !mine is not read here; leave it out"),
        ("a: !!int x", "1:4: the tag !!int is not read here; leave it out"),
        ("a: 1e999", "1:4: the number 1e999 is too large; put it into quotes if it is a text"),
        (f"a: {'9' * 5000}", "1:4: the number has 5000 digits; put it into quotes if it is a text"),
        ("a: x\0y", "1:5: the character '\\x00' cannot be in YAML; in double quotes it is written as \\x00"),
        (b"a: 1\nb: \xff\xfe", "2:4: the byte 0xff is no UTF-8; save the file as UTF-8"),
        ("a: \ud800", "1:4: the byte 0xed is no UTF-8; save the file as UTF-8"),
        (b"\xff\xfea\x00:\x00", "1:1: the byte 0xff is no UTF-8; save the file as UTF-8"),
        ("a: " + "x" * MAX_BYTES, "0:0: it has more than 512 KiB, which no spec needs; keep large texts in files of their own"),
        ("[" * 100_000, f"1:{MAX_DEPTH + 1}: it nests more than {MAX_DEPTH} levels deep, which no spec needs"),
        ("- " * 100_000, f"1:{2 * MAX_DEPTH + 1}: it nests more than {MAX_DEPTH} levels deep, which no spec needs"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(text: str | bytes, says: str) -> None:
    assert complaint(text) == says


def test_a_bomb_of_aliases_is_refused_before_it_is_laid_out() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    assert f"it has more than {MAX_NODES:,} values, counting what aliases stand for" in complaint("\n".join(lines))
    merged = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 40)]
    assert "counting what aliases stand for" in complaint("\n".join(merged))


def test_several_faults_are_told_together() -> None:
    _, complaints = parse("a: 1\na: 2\nb: !x 3\nc: 1e999\n")
    assert [mark.line for mark, _ in complaints] == [2, 3, 4]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200) | st.binary(max_size=200) | st.text("-?:,[]{}#&*!|>'\"%@` \n\tab1~<=\\", max_size=80))
@example("%YAML 1.1\n--- !<tag:x> a")
@example('"\\ud800"')
@example("? ? a : b")
@example("&a &b c")
@example("- !!map x")
def test_anything_at_all_is_read_or_complained_of(text: str | bytes) -> None:
    node, complaints = parse(text)
    assert complaints == [] or all(message for _, message in complaints)
    if node is not None and not complaints:
        json.dumps(node.data(), allow_nan=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(-1e9, 1e9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(JSON)
def test_json_is_yaml(value: object) -> None:
    assert data(json.dumps(value)) == value


@settings(deadline=None, max_examples=100)
@given(JSON, st.booleans())
def test_what_pyyaml_writes_is_what_is_read(value: object, flow: bool) -> None:
    assert data(yaml.safe_dump(value, default_flow_style=flow)) == value


@pytest.mark.parametrize("bad", [{1: 2}, {"a": {1, 2}}, {"a": float("nan")}, [object()], {"a": b"x"}])
def test_data_that_is_no_json_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="no plain data|no text"):
        plain_node(bad)


def test_data_that_holds_itself_is_refused() -> None:
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(ValueError, match="levels deep"):
        plain_node(ring)
