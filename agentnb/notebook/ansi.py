"""Terminal output as lines that are safe to show: colours kept, every other control sequence gone (pure).

A `Screen` is fed raw pieces of output and keeps the last lines as `Line` records. Carriage returns and erase-line rewrite
a stream's open line, so a progress bar is one line however often it is drawn.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

#: A span of text and its style: space-separated class suffixes, "" for none (see `Style.classes`).
Span = tuple[str, str]

MAX_LINES = 200
MAX_CHARS = 16 * 1024
MAX_LINE_CHARS = 2_000
#: An escape sequence that is still open at the end of a piece is kept up to this length, then dropped.
_MAX_PENDING = 256
#: The last line is looked for in this much of the end first.
_NEAR_CHARS = 240
#: More raw text than this at once cannot all be shown: its front is skipped unread.
_MAX_FEED = 8 * MAX_CHARS

# CSI; OSC, DCS, SOS, PM and APC with their payload, which ends at the latest where another one begins (so matching stays linear).
_CSI = r"(?:\x1b\[|\x9b)"
_STRING = r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n\x90\x98\x9d-\x9f]*"
_SEQUENCE = re.compile(
    rf"{_CSI}(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])|{_STRING}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\^-~]"  # two-character and charset escapes
    r"|(?P<break>\r?\n)|(?P<return>\r)|(?P<back>\x08)"
)
_OPEN = re.compile(rf"(?:{_CSI}[0-?]*[ -/]*|{_STRING}\x1b?|\x1b[ -/]*)\Z")
# C0 (but not tab), DEL, C1, lone surrogates, line and paragraph separators, bidi embeddings, overrides and isolates.
_UNSAFE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BIDI = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_SPACES = {"\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"}
_COLOURS = (
    (0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229),
    (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255), (255, 255, 255),
)  # fmt: skip
_FLAGS = {1: "b", 2: "d", 3: "i", 4: "u", 7: "v", 9: "s"}
_FLAGS_OFF = {22: "bd", 23: "i", 24: "u", 27: "v", 29: "s"}


def _neutral(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SPACES:
        return " "
    code = ord(char)
    if code in _BIDI:
        return f"[U+{code:04X}]"
    return "\ufffd" if code >= 0xD800 else ""


def safe(text: str) -> str:
    """`text` on one line, without any control character; bidi overrides become visible, lone surrogates U+FFFD."""
    return _UNSAFE.sub(_neutral, text)


def plain(text: str) -> str:
    """`safe` of `text` without its escape sequences: for names, commands, errors and parameters."""
    return safe(_SEQUENCE.sub(lambda m: " " if m["break"] or m["return"] else "", text)) if _UNSAFE.search(text) else text


def _nearest(red: int, green: int, blue: int) -> int:
    return min(range(16), key=lambda n: sum((a - b) ** 2 for a, b in zip(_COLOURS[n], (red, green, blue), strict=True)))


def _palette(index: int) -> int:
    """One of the 16 colours for one of the 256."""
    if index < 16:
        return index
    if index >= 232:
        grey = 8 + 10 * (min(index, 255) - 232)
        return _nearest(grey, grey, grey)
    index -= 16
    red, green, blue = (0 if n == 0 else 55 + 40 * n for n in (index // 36, index // 6 % 6, index % 6))
    return _nearest(red, green, blue)


@dataclass(slots=True)
class Style:
    """The graphic rendition in force. Colours are 0-15 or None; concealed text is shown, so that nothing hides."""

    fg: int | None = None
    bg: int | None = None
    flags: set[str] = field(default_factory=set)

    def classes(self) -> str:
        """The style as class suffixes: ``f1`` red text, ``g4`` blue ground, ``b d i u v s`` bold dim italic underlined inverse struck."""
        names = [] if self.fg is None else [f"f{self.fg}"]
        if self.bg is not None:
            names.append(f"g{self.bg}")
        return " ".join([*names, *sorted(self.flags)])

    def apply(self, args: str) -> None:
        """Change the style as ``ESC [ args m`` says; what is not understood is skipped."""
        codes = deque(int(part) if part.isdecimal() and len(part) < 6 else 0 for part in args.replace(":", ";").split(";"))
        while codes:
            self._one(codes.popleft(), codes)

    def _one(self, code: int, rest: deque[int]) -> None:
        if code == 0:
            self.fg, self.bg = None, None
            self.flags.clear()
        elif code in _FLAGS:
            self.flags.add(_FLAGS[code])
        elif code in _FLAGS_OFF:
            self.flags -= set(_FLAGS_OFF[code])
        elif 30 <= code <= 39 or 90 <= code <= 97:
            self.fg = self._colour(code, 30, rest)
        elif 40 <= code <= 49 or 100 <= code <= 107:
            self.bg = self._colour(code, 40, rest)

    @staticmethod
    def _colour(code: int, base: int, rest: deque[int]) -> int | None:
        if code >= base + 60:
            return code - base - 52
        if code - base < 8:
            return code - base
        if code - base == 8 and rest:
            mode = rest.popleft()
            if mode == 5 and rest:
                return _palette(rest.popleft())
            if mode == 2 and len(rest) >= 3:
                return _nearest(*(min(rest.popleft(), 255) for _ in range(3)))
        return None


@dataclass(slots=True)
class Line:
    """One line of one stream."""

    stream: str
    spans: list[Span] = field(default_factory=list)
    size: int = 0

    @property
    def text(self) -> str:
        """The line without its styles."""
        return "".join(text for _, text in self.spans)

    def add(self, classes: str, text: str) -> None:
        """Append `text`; past MAX_LINE_CHARS it ends with an ellipsis."""
        room = MAX_LINE_CHARS - self.size
        if room <= 0:
            return
        if len(text) > room:
            text = text[: room - 1] + "…"
        self.size += len(text)
        if self.spans and self.spans[-1][0] == classes:
            text = self.spans.pop()[1] + text
        self.spans.append((classes, text))

    def back(self) -> None:
        """Take the last character away (a backspace)."""
        if self.spans:
            classes, text = self.spans.pop()
            self.size -= 1
            if text[:-1]:
                self.spans.append((classes, text[:-1]))

    def clear(self) -> None:
        """Take everything away (a carriage return that more text follows)."""
        self.spans.clear()
        self.size = 0


@dataclass(slots=True)
class _Pen:
    """Where one stream writes: its style, its open line, and what is not complete yet."""

    style: Style = field(default_factory=Style)
    line: int | None = None
    rewrite: bool = False
    pending: str = ""


class Screen:
    """The last lines of a run's output. Lines are numbered from 0 for ever; `first` is the number of `lines[0]`."""

    def __init__(self, max_lines: int = MAX_LINES, max_chars: int = MAX_CHARS) -> None:
        """Keep at most `max_lines` lines with `max_chars` characters in all."""
        self.lines: deque[Line] = deque()
        self.first = 0
        self._limits = (max_lines, max_chars)
        self._changed: int | None = None
        self._pens: dict[str, _Pen] = {}

    @property
    def end(self) -> int:
        """The number that the next new line gets."""
        return self.first + len(self.lines)

    def feed(self, segments: Iterable[tuple[str, str]], *, gap: bool = False) -> None:
        """Write raw pieces; `gap` says that they are a whole new tail, with output lost before them."""
        if gap:
            self._drop(len(self.lines))
            self.first += 1
            self._changed = self.first
            self._pens.clear()
        fed = 0
        for stream, text in segments:
            self._write(self._pens.setdefault(stream, _Pen()), stream, text)
            fed += len(text)
            if fed > _MAX_FEED:  # keep memory bounded, but do not count all lines again for each of many small pieces
                self._trim()
                fed = 0
        self._trim()

    def take(self) -> tuple[int, list[Line]] | None:
        """What changed since the last take: (number of the first changed line, all lines from there on); None: nothing."""
        changed, self._changed = self._changed, None
        if changed is None:
            return None
        changed = max(changed, self.first)
        return changed, list(self.lines)[changed - self.first :]

    def _write(self, pen: _Pen, stream: str, text: str) -> None:
        if len(text) > _MAX_FEED:
            text = text[text.find("\n", len(text) - _MAX_FEED) + 1 :][-_MAX_FEED:]
        text, pen.pending = pen.pending + text, ""
        if text.endswith("\r"):  # half of a line break, perhaps
            text, pen.pending = text[:-1], "\r"
        elif (tail := _OPEN.search(text, max(0, len(text) - _MAX_PENDING))) is not None:
            text, pen.pending = text[: tail.start()], tail[0]
        at = self._write_lines(pen, stream, text)
        for match in _SEQUENCE.finditer(text, at):
            self._put(pen, stream, text[at : match.start()])
            at = match.end()
            self._control(pen, stream, match)
        self._put(pen, stream, text[at:])

    def _write_lines(self, pen: _Pen, stream: str, text: str) -> int:
        """Write the whole lines of `text` at once, if they are plain and nothing is open, which is what a flood is; how far that went."""
        if pen.line is not None or pen.rewrite or _UNSAFE.search((whole := text[: text.rfind("\n") + 1]).replace("\n", "")):
            return 0
        lines, most, classes = whole.split("\n")[:-1], self._limits[0], pen.style.classes()
        if (over := len(lines) - most) > 0 and all(other.line is None for other in self._pens.values()):
            self._drop(len(self.lines))  # they would push all that is there out, and themselves
            self.first += over
            lines = lines[over:]
        if lines:
            self._changed = self.end if self._changed is None else min(self._changed, self.end)
        for content in lines:
            line = Line(stream)
            if content:
                line.add(classes, content)
            self.lines.append(line)
        return len(whole)

    def _control(self, pen: _Pen, stream: str, match: re.Match[str]) -> None:
        if match["break"]:
            self._open_line(pen, stream)
            pen.line, pen.rewrite = None, False
        elif match["return"]:
            pen.rewrite = True
        elif match["final"] == "m":
            pen.style.apply(match["args"])
        elif match["back"]:
            self._open_line(pen, stream).back()
        elif match["final"] == "K" and match["args"] in {"1", "2"}:
            self._open_line(pen, stream).clear()

    def _put(self, pen: _Pen, stream: str, text: str) -> None:
        text = safe(text)
        if not text:
            return
        line = self._open_line(pen, stream)
        if pen.rewrite:
            line.clear()
            pen.rewrite = False
        line.add(pen.style.classes(), text)

    def _open_line(self, pen: _Pen, stream: str) -> Line:
        """The line that `pen` writes on; it is marked as changed. A new one when there is none, or it has scrolled away."""
        if pen.line is None or pen.line < self.first:
            pen.line = self.end
            self.lines.append(Line(stream))
        self._changed = pen.line if self._changed is None else min(self._changed, pen.line)
        return self.lines[pen.line - self.first]

    def _trim(self) -> None:
        max_lines, max_chars = self._limits
        self._drop(len(self.lines) - max_lines)
        size = sum(line.size for line in self.lines)
        while size > max_chars and len(self.lines) > 1:
            size -= self.lines[0].size
            self._drop(1)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self.lines.popleft()
            self.first += 1


def last_line(segments: Iterable[tuple[str, str]]) -> str:
    """The last line of raw output that is not blank, without styles; "" when there is none."""
    pieces = [*segments]
    near = pieces[-1][1][-_NEAR_CHARS:].partition("\n")[2] if pieces else ""
    if (found := near.strip()) and not _UNSAFE.search(near.replace("\n", "")):  # a flood of plain lines
        return found.rpartition("\n")[2].strip()
    # A table asks for each row whenever something was printed: whole lines at the very end do, nearly always; else the last few pieces.
    whole = [(stream, text[-_NEAR_CHARS:].partition("\n")[2]) for stream, text in pieces[-1:]]
    return _last_line(whole) or _last_line(pieces[-3:]) or _last_line(pieces[-30:])


def _last_line(pieces: Sequence[tuple[str, str]]) -> str:
    screen = Screen(max_lines=20)
    screen.feed((stream, text[-MAX_LINE_CHARS:]) for stream, text in pieces)
    return next((text for line in reversed(screen.lines) if (text := line.text.strip())), "")
