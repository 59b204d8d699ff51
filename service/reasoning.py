"""Where a thinking model's reasoning ends and its answer begins.

A tag opens the reasoning, in the completion or at the end of the prompt, where some chat templates write it; another
one closes it. Invariant: a completion whose reasoning is opened and never closed has no answer. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningTags:
    """The texts that open and close reasoning."""

    open: str = "<think>"
    close: str = "</think>"

    def answer_in(self, completion: str) -> str | None:
        """What follows the last closing tag; all of it without any tag; None if reasoning is opened and not closed."""
        closed = completion.rfind(self.close)
        if closed >= 0:
            return completion[closed + len(self.close) :]
        return None if self.open in completion else completion

    def is_opened_by(self, prompt: str) -> bool:
        """Whether a prompt ends within reasoning, so that a completion begins there."""
        return prompt.rstrip().endswith(self.open)

    def whole(self, prompt: str, completion: str) -> str:
        """A completion with the opening tag that its prompt holds, if it does."""
        return self.open + completion if self.is_opened_by(prompt) else completion

    def without(self, prompt: str, completion: str) -> tuple[str, str]:
        """Prompt and answer without reasoning; the answer is empty where there is none."""
        answer = (self.answer_in(self.whole(prompt, completion)) or "").lstrip("\n")
        return (prompt.rstrip().removesuffix(self.open) if self.is_opened_by(prompt) else prompt), answer


DEFAULT_TAGS = ReasoningTags()
"""Those of most open thinking models."""


def source_tags(job: Mapping[str, Any], arm: str | None = None) -> ReasoningTags:
    """The tags of a job's stored document.

    Args:
        arm: of which of its arms; None where it has one prompt.
    """
    arms: dict[str, Any] = {each["name"]: each["prompt"] for each in job.get("arms") or ()}
    stated = dict(arms.get(str(arm), job.get("prompt")) or {}).get("reasoning_tags")
    return DEFAULT_TAGS if stated is None else ReasoningTags(**stated)
