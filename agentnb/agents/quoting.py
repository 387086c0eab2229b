r"""Where a shell line can take a value: a follower of the quoting of POSIX shells.

A value is put into a shell line as one single-quoted word. That is safe only where the shell reads plain words: inside quotes,
backticks, here-documents, comments, ``${...}`` and arithmetic, and right after ``\`` or ``$``, the quotes of the value would
not protect it. The follower reads the literal text of the line and says, at each value, whether the place is safe. Where it
cannot know (shells disagree, or the grammar is needed), it says no.
"""

from __future__ import annotations

import re
from typing import Final

#: Shells that read '...' as POSIX says. fish and csh do not.
POSIX_SHELLS: Final = frozenset({"sh", "dash", "ash", "bash", "ksh", "mksh", "zsh", "yash", "busybox", "posh"})

#: How a number looks that no shell state can turn into anything else.
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_OPEN_NAME = re.compile(r"\$\w*$", re.ASCII)
_SEPARATORS = frozenset(" \t\n;&|()<>")

_ADVICE = (
    'set a variable at the start of the line, name={{ value }}; and use "$name" there, or write {{ value | raw }} to put it in as it is'
)
_REASONS = {
    "single": "stands inside single quotes; values are quoted already: drop the quotes, or write {{ value | raw }} to put it in as it is",
    "double": "stands inside double quotes; values are quoted already: drop the quotes, or write {{ value | raw }} to put it in as it is",
    "backtick": f"stands inside backticks, where no quoting is safe; write $(...) instead, or {_ADVICE}",
    "parameter": f"stands inside ${{...}}, where quoting is not safe; {_ADVICE}",
    "arithmetic": f"stands inside ((...)), where only numbers are safe; {_ADVICE}",
    "comment": "stands inside a shell comment, which a line break in the value would end; take it out of the comment",
}
_LOST = f"comes after shell syntax that cannot be followed safely (a here-document, `case` in $(...), or quotes in ${{...}}); {_ADVICE}"


class Follower:
    """Follows a shell line piece by piece: `literal` for its text, `value` for each value that goes in."""

    def __init__(self) -> None:
        """Start at the beginning of a line."""
        self._frames: list[str] = ["command"]
        self._depths: list[int] = [0]
        self._lost = self._heredoc = self._escaped = False
        self._before = ""  # the text since the last separator or value, for `case` and for `$name`
        self._word_start = True
        self._text = ""
        self._at = 0

    def value(self, value: object, text: str) -> str:
        """The form in which `text`, the text of `value`, may stand here. Raises ValueError with the reason why it must not."""
        frame = self._frames[-1]
        number = isinstance(value, int | float) and not isinstance(value, bool) and _NUMBER.fullmatch(text) is not None
        if self._lost:
            raise ValueError(_LOST)
        if self._escaped:
            raise ValueError(f"stands right after a backslash, which would undo its quotes; {_ADVICE}")
        if self._before.endswith("$") and frame != "single":
            raise ValueError("stands right after a '$', which would change its meaning; write {{ value }} without the '$'")
        if frame in {"command", "array"}:
            self._before, self._word_start = "", False
            return "'" + text.replace("'", "'\"'\"'") + "'"
        if not number or frame in {"backtick", "parameter"}:
            raise ValueError(_REASONS[frame])
        if frame == "double" and _OPEN_NAME.search(self._before):
            raise ValueError("stands right after the name of a variable; write ${name} there")
        self._before = ""
        return text

    def literal(self, text: str) -> None:
        """Follow `text`, which stands in the line as it is."""
        self._text, self._at = text, 0
        while self._at < len(text) and not self._lost:
            char = text[self._at]
            if char == "\n" and self._heredoc:
                self._lost = True
            elif self._escaped:
                self._escaped = False
                self._pass(char)
                self._before, self._word_start = "", False
            else:
                getattr(self, f"_in_{self._frames[-1]}")(char)

    def _pass(self, char: str, count: int = 1) -> None:
        """Go on by `count` characters; `char` becomes what stands before."""
        self._word_start = char in _SEPARATORS
        self._before = "" if self._word_start else self._before[-255:] + char
        self._at += count

    def _push(self, frame: str, count: int, depth: int = 0) -> None:
        self._frames.append(frame)
        self._depths.append(depth)
        self._before, self._word_start = "", True
        self._at += count

    def _pop(self) -> None:
        self._frames.pop()
        self._depths.pop()
        self._before, self._word_start = "", False
        self._at += 1

    def _escape(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        if following == "\n":  # the shell joins the lines: what stands before and after it may become one operator
            self._lost = self._lost or self._before.endswith("$") or self._text[: self._at].endswith(("<", "("))
            self._at += 2
            return
        self._escaped = True
        self._word_start = False
        self._before = ""
        self._at += 1

    def _dollar(self) -> bool:
        """Follow what a ``$`` opens; False if it opens nothing."""
        rest = self._text[self._at : self._at + 3]
        if rest.startswith(("$[", "$'")):
            self._lost = True
        elif rest == "$((":
            self._push("arithmetic", 3, 2)
        elif rest.startswith("$("):
            self._push("command", 2, 1)
        elif rest.startswith("${"):
            self._push("parameter", 2)
        else:
            return False
        return True

    def _in_command(self, char: str) -> None:
        rest = self._text[self._at : self._at + 3]
        if char in _SEPARATORS and self._before == "case" and any(self._depths):
            self._lost = True  # its patterns have unpaired parentheses, so the end of $(...) cannot be found
        elif char == "\\":
            self._escape()
        elif char == "$" and rest.startswith("$'"):
            self._ansi_quotes()
        elif char == "$" and self._dollar():
            pass
        elif char in "'\"`":
            self._push({"'": "single", '"': "double", "`": "backtick"}[char], 1)
        elif char == "#" and self._word_start:
            self._push("comment", 1)
        elif rest.startswith("<<"):
            self._heredoc = self._heredoc or rest != "<<<"
            self._pass("<", len(rest) if rest == "<<<" else 2)
        elif char == "(" and self._before.endswith("="):
            self._push("array", 1)
        elif rest.startswith("(("):
            self._push("arithmetic", 2, 2)
        else:
            self._parenthesis(char)

    def _in_array(self, char: str) -> None:
        if char in ";&|<>(":
            self._lost = True  # a syntax error, after which bash goes on with the next line, even inside of quotes
        elif char == ")":
            self._pop()
        else:
            self._in_command(char)

    def _parenthesis(self, char: str) -> None:
        if self._depths[-1]:
            self._depths[-1] += {"(": 1, ")": -1}.get(char, 0)
            if not self._depths[-1]:
                self._pop()
                return
        self._pass(char)

    def _ansi_quotes(self) -> None:
        """``$'...'``: quotes with escapes in bash, a dollar and plain quotes in dash; the same only without a backslash."""
        end = self._text.find("'", self._at + 2)
        if end < 0 or "\\" in self._text[self._at : end]:
            self._lost = True
        else:
            self._at = end
            self._pass("'")

    def _in_single(self, char: str) -> None:
        if char == "'":
            self._pop()
        else:
            self._pass(char)

    def _in_double(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == '"':
            self._pop()
        elif char == "`":
            self._push("backtick", 1)
        elif char != "$" or self._text.startswith("$'", self._at) or not self._dollar():
            self._pass(char)

    def _in_backtick(self, char: str) -> None:
        if char == "\\":
            self._escape()
        elif char == "`":
            self._pop()
        else:
            self._pass(char)

    def _in_parameter(self, char: str) -> None:
        if char in "'\"\\`":
            self._lost = True  # what quotes mean here depends on the operator, on the quotes around it, and on the shell
        elif char == "}":
            self._pop()
        elif char != "$" or not self._dollar():
            self._pass(char)

    def _in_arithmetic(self, char: str) -> None:
        if char in "'\"\\`\n" or (char == "#" and self._word_start) or self._before == "case":
            self._lost = True  # quotes mean little in arithmetic; a comment, a line break or a case says that this is a subshell
        elif char != "$" or not self._dollar():
            self._parenthesis(char)

    def _in_comment(self, char: str) -> None:
        if char == "\n":
            self._pop()
            self._word_start = True
        else:
            self._pass(char)
