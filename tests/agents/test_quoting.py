"""Values in shell lines, against real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentnb.agents.template import render
from agentnb.errors import TemplateError

SHELLS = [shell for shell in ("dash", "bash") if shutil.which(shell)]
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
NASTY = TEXTS | st.text(alphabet="'\"\\$`(){}[]<>|&;#!~*?=%@^\n\t -aEOF0", max_size=30)

#: Places that take any text, each printing the value and a full stop.
SAFE_PLACES = [
    "printf %s. {{x}}",
    "printf %s. {{x}};true",
    'v={{x}}; printf %s. "$v"',
    'printf %s. "$(printf %s. {{x}})"',
    "printf %s. 'a b' \"c $HOME\" >/dev/null; printf %s. {{x}} # it's a comment",
    "if true; then (printf %s. {{x}}); fi",
    "# it's \"only` a comment\nprintf %s. {{x}}",
    "printf %s. a\\ b\\' >/dev/null;printf %s. {{x}}",
    'for i in {{x}}; do printf %s. "$i"; done',
    'f() { printf %s. "$1"; }; f {{x}}',
    "case {{x}} in *) printf %s. {{x}};; esac",
    "{% if x or not x %}printf %s. {{x}}{% endif %}",
    "{% for y in [x] %}printf %s. {{y}}{% endfor %}",
    "{% set y = x %}printf %s. {{y}}",
]

#: Pieces of shell, harmless in any order.
# fmt: off
PIECES = ["{{x}}", "v=(", "{{x}}", "echo ", " ", "'", '"',
          "$(", ")", "(", "((", "))", "$((", "${v:-", "${v}", "}", "#", "\n", "`", "\\", "$", "case a in a) ",
          ";; esac", "<<E", "<<<", "\nE\n", ";", "v=", "$'", "$[", "]", "a", "\\\n", "{ ", "; }", "if true; then ", "; fi", "[[ ", " ]]"]
ATTACKS = ["$(touch hit)", "`touch hit`", "\ntouch hit\n", "\nE\ntouch hit\n", '";touch hit;"', "';touch hit;'",
           "\\';touch hit;#", ");touch hit;(",
           "};touch hit;{", "))\ntouch hit\n((", "x[$(touch hit)]", "'\"`;touch hit;`\"'", "\\\n';touch hit\n#"]
# fmt: on


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=NASTY, place=st.sampled_from(SAFE_PLACES))
@example(value="'", place=SAFE_PLACES[0])
@example(value="a\\", place=SAFE_PLACES[0])
@example(value="{{x}}{% raw %}", place=SAFE_PLACES[0])
@example(value="-n", place=SAFE_PLACES[0])
@example(value="", place=SAFE_PLACES[0])
@example(value="\n", place=SAFE_PLACES[2])
def test_a_shell_gets_every_value_byte_for_byte(shell: str, value: str, place: str, tmp_path: Path) -> None:
    line = render(place, {"x": value}, shell=True, what="line")
    done = subprocess.run([shell, "-c", line], capture_output=True, cwd=tmp_path, check=False, timeout=20)
    printed = done.stdout.rstrip(b".") if "$(" in place else done.stdout[:-1]
    expected = value.encode().rstrip(b".") if "$(" in place else value.encode()
    assert (printed, done.returncode) == (expected, 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=2, max_size=14), attack=st.sampled_from(ATTACKS), shell=st.sampled_from(SHELLS))
def test_no_value_runs_as_a_command_whatever_the_line_around_it(pieces: list[str], attack: str, shell: str, tmp_path: Path) -> None:
    try:
        line = render("".join(pieces), {"x": attack}, shell=True, what="line")
    except TemplateError:
        return
    subprocess.run([shell, "-c", line], capture_output=True, cwd=tmp_path, check=False, timeout=20, stdin=subprocess.DEVNULL)
    assert not (tmp_path / "hit").exists(), line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("echo '{{x}}'", "single quotes"),
        ('echo "{{x}}"', "double quotes"),
        ('echo "$(cat {{x}}) {{x}}"', "double quotes"),
        ("echo `cat {{x}}`", "backticks"),
        ("cat <<EOF\n{{x}}\nEOF", "here-document"),
        ("echo # {{x}}", "comment"),
        ("echo ${v:-{{x}}}", "${...}"),
        ("echo $(( {{x}} ))", "((...))"),
        ("echo \\{{x}}", "backslash"),
        ("echo ${{x}}", "after a '$'"),
        ("echo $'a\\'{{x}}", "cannot be followed"),
        ('echo "$(case a in a) echo "{{x}}";; esac)"', "cannot be followed"),
    ],
)
def test_a_value_where_quoting_cannot_protect_it_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(TemplateError, match="make demo") as caught:
        render(line, {"x": "a b"}, shell=True, what="make demo")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('echo "n={{n}}"', 'echo "n=3"'),
        ("python -c 'print({{n}}**2)'", "python -c 'print(3**2)'"),
        ("echo $(( {{n}} * 2 ))", "echo $(( 3 * 2 ))"),
        ("sleep {{f}}", "sleep '0.5'"),
        ("echo \\${{n}}", "echo \\$'3'"),
        ("echo x 2>{{s}}", "echo x 2>'out'"),
        ("echo {{ s | raw }}*", "echo out*"),
        ("echo '{{ s | raw }}'", "echo 'out'"),
        ("cat <<< {{s}}", "cat <<< 'out'"),
        ("diff <(cat {{s}}) b", "diff <(cat 'out') b"),
        ("{{s}}{{s}}", "'out''out'"),
    ],
)
def test_numbers_may_stand_in_quotes_and_raw_opts_out(line: str, shown: str) -> None:
    assert render(line, {"n": 3, "f": 0.5, "s": "out"}, shell=True, what="line") == shown


@pytest.mark.parametrize("value", ["3", True, float("inf"), "1e5"])
def test_only_real_numbers_may_stand_in_quotes(value: object) -> None:
    with pytest.raises(TemplateError, match="double quotes"):
        render('echo "{{x}}"', {"x": value}, shell=True, what="line")


def test_a_number_after_the_name_of_a_variable_would_change_the_name() -> None:
    with pytest.raises(TemplateError, match="name of a variable"):
        render('echo "$v{{n}}"', {"n": 3}, shell=True, what="line")


def test_nul_characters_cannot_forge_the_mark_of_a_value() -> None:
    with pytest.raises(TemplateError, match="NUL"):
        render("echo {{x}}", {"x": "\x000\x00"}, shell=True, what="line")
    with pytest.raises(TemplateError, match="NUL"):
        render("echo {{x}} \x000\x00", {"x": "a"}, shell=True, what="line")
