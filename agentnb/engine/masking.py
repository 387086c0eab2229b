"""Masking of secrets in a stream of bytes, also when a secret is split across reads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from typing import Any

MASK = b"***"


def _forms(secret: str) -> set[bytes]:
    """The secret's bytes, and how it looks inside JSON, Python's repr, quotes of a shell, and base64 (at each of the three alignments)."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {raw, json.dumps(secret)[1:-1].encode(), json.dumps(secret, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape")}
    quoted = [repr(secret)[1:-1], secret.replace("'", "'\"'\"'"), re.sub(r'([\\"$`])', r"\\\1", secret)]
    forms |= {form.encode("utf-8", "surrogateescape") for form in quoted}
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw)
        # The first and last characters depend on the neighbours: leave them out.
        middle = coded[(0, 2, 3)[shift] :].rstrip(b"=")
        middle = middle[: len(middle) - (0 if (len(raw) + shift) % 3 == 0 else 1)]
        if len(middle) >= 8:
            forms |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


def _number(secret: str) -> float | None:
    """The number that the secret is, if it is one: as an int where it is whole, so that none of its digits is lost."""
    try:
        return int(secret)
    except ValueError:
        pass
    try:
        return float(secret)
    except ValueError:
        return None


class Masker:
    """Replaces secrets by ``***``; keeps back what may be a secret's beginning until more comes."""

    def __init__(self, secrets: Collection[str]) -> None:
        """Mask these values, none of them empty."""
        self._numbers = {number for secret in secrets if (number := _number(secret)) is not None}
        forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(form) for form in forms))  # the longest form first
        self._forms = forms
        self._kept = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes; return what can be shown now. With `last`, all that is left.

        However the bytes are cut, the pieces together are what `clean` makes of the whole.
        """
        text = self._kept + data
        shown, at = list[bytes](), 0
        sure = len(text) if last else self._sure(text, 0)
        while (match := self._pattern.search(text, at)) and match.start() < sure:
            shown += [text[at : match.start()], MASK]
            at = match.end()
            if at > sure:
                sure = self._sure(text, at)
        shown.append(text[at:sure])
        self._kept = text[sure:]
        return b"".join(shown)

    def _sure(self, text: bytes, start: int) -> int:
        """Where, from `start` on, `text` first ends in what may be the beginning of a form; its length when nowhere."""
        sure = len(text)
        for form in self._forms:
            first = form[:1]
            at = text.find(first, max(start, len(text) - len(form) + 1))
            while 0 <= at < sure:
                if form.startswith(text[at:]):
                    sure = at
                at = text.find(first, at + 1)
        return sure

    def clean(self, text: str) -> str:
        """All of `text` at once, masked."""
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a surrogate pair, as JSON can hold
            data = text.encode("utf-8", "replace")
        return self._pattern.sub(MASK, data).decode("utf-8", "surrogateescape")

    def clean_bytes(self, data: bytes) -> bytes:
        """All of `data` at once, masked."""
        return self._pattern.sub(MASK, data)

    def clean_data(self, data: Any) -> Any:
        """JSON data with every text in it masked, and every number that is written as, or equals, a secret."""
        if isinstance(data, str):
            return self.clean(data)
        if isinstance(data, dict):
            return {self.clean(name): self.clean_data(value) for name, value in data.items()}
        if isinstance(data, list):
            return [self.clean_data(value) for value in data]
        if isinstance(data, int | float) and not isinstance(data, bool):
            return self._clean_number(data)
        return data

    def _clean_number(self, data: float) -> Any:
        text = repr(data)
        if data in self._numbers:
            return MASK.decode()
        return data if (cleaned := self.clean(text)) == text else cleaned
