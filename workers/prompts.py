"""How a problem becomes a prompt: template, worked examples, system text, chat template.

Owns rendering to text; tokenising is `workers/prepare.py`. Invariant: the same spec, seed and problem give the same
prompt on any machine. Must not import ray, vllm or torch.
"""

import random
import string
from collections.abc import Callable, Sequence
from hashlib import blake2b

from service.errors import InvalidInput
from service.jobs import PromptSpec

Message = dict[str, str]
ChatTemplate = Callable[[Sequence[Message]], str]
_FIELD = "question"


class BadTemplate(InvalidInput):
    """A template cannot be filled in. The message says which field is unknown and which one is allowed."""


def check_prompt(spec: PromptSpec) -> None:
    """Checks what does not depend on a problem.

    Raises:
        BadTemplate: unknown fields, or none for the question.
        InvalidInput: fewer worked examples than a prompt shall show.
    """
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(spec.template) if name is not None]
    except ValueError as error:
        raise BadTemplate(f"prompt template {spec.template!r}: {error}; a literal brace is written twice") from error
    if unknown := sorted(set(fields) - {_FIELD}):
        names = ", ".join(f"{{{name}}}" for name in unknown)
        raise BadTemplate(f"prompt template has unknown field {names}; allowed: {{{_FIELD}}}")
    if not fields:
        raise BadTemplate(f"prompt template {spec.template!r} has no {{{_FIELD}}}")
    shots = spec.few_shot
    if not 0 <= shots.num_shots <= len(shots.examples):
        raise InvalidInput(
            f"few_shot.num_shots must be 0..{len(shots.examples)} (the examples given), got {shots.num_shots}"
        )


def render(
    spec: PromptSpec, question: str, *, problem_id: str, seed: int, apply_chat_template: ChatTemplate | None = None
) -> str:
    """The text that is tokenised.

    Worked examples come before the question, a blank line between them; with a chat template they are earlier turns.

    Args:
        apply_chat_template: needed when the spec uses one.
    """
    examples = _examples(spec, problem_id=problem_id, seed=seed)
    if apply_chat_template is not None and spec.use_chat_template:
        messages: list[Message] = []
        if spec.system is not None:
            messages.append({"role": "system", "content": spec.system})
        for example, solution in examples:
            messages.append({"role": "user", "content": _fill(spec, example)})
            messages.append({"role": "assistant", "content": solution})
        messages.append({"role": "user", "content": _fill(spec, question)})
        return apply_chat_template(messages)
    blocks = [] if spec.system is None else [spec.system]
    blocks += [_fill(spec, example) + solution for example, solution in examples]
    return "\n\n".join([*(block.rstrip("\n") for block in blocks), _fill(spec, question)])


def _fill(spec: PromptSpec, question: str) -> str:
    return spec.template.format(question=question)


def _examples(spec: PromptSpec, *, problem_id: str, seed: int) -> Sequence[tuple[str, str]]:
    shots = spec.few_shot
    if shots.choice == "fixed" or shots.num_shots == 0:
        return shots.examples[: shots.num_shots]
    digest = blake2b(f"{seed}\0{problem_id}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "big")).sample(shots.examples, shots.num_shots)
