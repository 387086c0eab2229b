"""Records on a terminal and in files: tables, JSON, CSV, Parquet."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from agentnb.errors import ConfigError, RuntimeUnavailable

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "json", "csv", "parquet")
WIDEST = 48

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")
_LINE_END = re.compile(r"\r+\n|\r")
#: A sequence, or a line's end, that may go on in the bytes to come.
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b\n]*\x1b?)?\Z|\r+\Z")
#: One that is still not whole then is dropped as far as it has come.
_LONGEST_SEQUENCE = 4096


def clean(text: str) -> str:
    """Text that cannot steer a terminal.

    Escape sequences are dropped, and control characters but newline and tab, and what turns the reading direction around.
    """
    return _CONTROL.sub("", _ANSI.sub("", text))


class TerminalText:
    """Bytes on their way to a terminal: their colours stay, and nothing else in them can steer it. Has what is used of a binary file.

    A carriage return, with which later text could hide earlier text, starts a new line.
    """

    def __init__(self, out: BinaryIO) -> None:
        """Write to `out`, whose terminal reads UTF-8; bytes that are none come out as ``\ufffd``."""
        self._out = out
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._coloured = False

    def write(self, data: bytes) -> int:
        """Write what can be told of the text so far; a character or sequence that is not whole yet waits for its rest."""
        text = self._held + self._decode(data)
        whole = _BEGUN.search(text)
        end = whole.start() if whole and len(text) - whole.start() < _LONGEST_SEQUENCE else len(text)
        self._held = text[end:]
        self._put(text[:end])
        return len(data)

    def flush(self) -> None:
        """Bring what was written to the terminal."""
        self._out.flush()

    def end(self) -> None:
        """Write what still waited, and take back colours that were left on."""
        self._put(self._held + self._decode(b"", final=True))
        self._held = ""
        if self._coloured:
            self._out.write(b"\x1b[0m")
        self._out.flush()

    def _put(self, text: str) -> None:
        safe = "".join(part if _COLOUR.fullmatch(part) else clean(part) for part in _COLOUR.split(_LINE_END.sub("\n", text)))
        self._coloured = self._coloured or "\x1b" in safe
        self._out.write(safe.encode())


def one_line(text: str, width: int = WIDEST) -> str:
    """`text` on one line of at most `width` characters."""
    line = clean(text.replace("\n", "⏎").replace("\t", " "))
    return line if len(line) <= width else line[: width - 1] + "…"


def plain(value: Any) -> Any:
    """A cell or a record as JSON data: stamps as ISO text in UTC, durations in seconds; NA, NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | str) else _scalar(value)


def _scalar(value: Any) -> Any:
    if str(value) == "<NA>" or value != value:  # noqa: PLR0124 - NaN and NaT are not themselves
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return plain(value.item()) if hasattr(value, "item") else str(value)


def json_text(data: Any, *, ensure_ascii: bool = True) -> str:
    """`data` as indented JSON; with `ensure_ascii`, what is not ASCII is escaped, so that nothing in it can steer a terminal."""
    return json.dumps(plain(data), indent=2, ensure_ascii=ensure_ascii, allow_nan=False) + "\n"


def cell(value: Any) -> str:
    """A value for a table: whole seconds for stamps, three decimals for floats, a dash for what is not known."""
    value = plain(value)
    match value:
        case None | "":
            return "-"
        case float():
            return f"{value:.3f}"
        case str() if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", value):
            return f"{value[:10]} {value[11:19]}"
        case str():
            return one_line(value)
    return one_line(json.dumps(value, ensure_ascii=False))


def table(rows: Iterable[Sequence[Any]], header: Sequence[str]) -> str:
    """An aligned table; numbers to the right, all else to the left."""
    body = [list(row) for row in rows]
    texts = [list(header), *([cell(value) for value in row] for row in body)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    right = [bool(body) and all(isinstance(plain(row[i]), int | float | None) for row in body) for i in range(len(header))]
    lines = []
    for row in texts:
        words = [text.rjust(width) if number else text.ljust(width) for text, width, number in zip(row, widths, right, strict=True)]
        lines.append("  ".join(words).rstrip() + "\n")
    return "".join(lines)


def write_frame(frame: pd.DataFrame, how: str, out: TextIO, path: Path | None = None) -> None:
    """Write `frame` as one of FORMATS to `path`, or to `out`. Parquet needs a path: ConfigError without one.

    A table says its number of rows. Raises RuntimeUnavailable when Parquet is asked for without pyarrow.
    """
    if how == "parquet":
        return _write_parquet(frame, path)
    if path is not None:
        with path.open("w", encoding="utf-8", newline="") as file:
            return write_frame(frame, how, file)
    if how == "json":
        out.write(json_text(frame.to_dict("records")))
    elif how == "csv":
        frame.to_csv(out, index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ")
    else:
        out.write(table(frame.itertuples(index=False, name=None), [str(name) for name in frame.columns]))
        out.write(f"{len(frame)} row{'' if len(frame) == 1 else 's'}\n")
    return None


def _write_parquet(frame: pd.DataFrame, path: Path | None) -> None:
    if path is None:
        raise ConfigError("--format parquet writes a file; name it with -o FILE")
    try:
        frame.to_parquet(path, index=False)
    except ImportError:
        raise RuntimeUnavailable('pyarrow is not installed; get it with: pip install "agentnb[parquet]"') from None
