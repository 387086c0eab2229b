"""Masking of secrets in a stream of bytes, also when a secret is split across reads."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable

MASK = b"***"


def _forms(secret: str) -> set[bytes]:
    """The secret's bytes, and how it looks inside JSON and base64 (at each of the three alignments)."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {raw, json.dumps(secret)[1:-1].encode()}
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw)
        # The first and last characters depend on the neighbours: leave them out.
        middle = coded[(0, 2, 3)[shift] :].rstrip(b"=")
        middle = middle[: len(middle) - (0 if (len(raw) + shift) % 3 == 0 else 1)]
        if len(middle) >= 8:
            forms |= {middle, middle.replace(b"+", b"-").replace(b"/", b"_")}
    return forms


class Masker:
    """Replaces secrets by ``***``; keeps back what may be a secret's beginning until more comes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        """Mask these values, none of them empty."""
        forms = sorted({form for secret in secrets for form in _forms(secret)}, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(re.escape(form) for form in forms))
        self._longest = len(forms[0])
        self._forms = forms
        self._kept = b""

    def feed(self, data: bytes, *, last: bool = False) -> bytes:
        """Take the next bytes; return what can be shown now. With `last`, all that is left."""
        text = self._pattern.sub(MASK, self._kept + data)
        cut = len(text) if last else len(text) - self._held(text)
        self._kept = text[cut:]
        return text[:cut]

    def _held(self, text: bytes) -> int:
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(form.startswith(end) for form in self._forms):
                return length
        return 0

    def clean(self, text: str) -> str:
        """All of `text` at once, masked."""
        return self._pattern.sub(MASK, text.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")
