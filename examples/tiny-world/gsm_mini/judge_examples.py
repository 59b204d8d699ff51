"""Judgements as token ids, with what a judge is asked on the way to its verdict.

Invariant: what the judge is asked in use is what it sees in training, token for token. Imports transformers; must not
import the application.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from gsm_mini.checker import EQUATION
from gsm_mini.judging import NO, YES, Judgement, judge_question, sound_steps
from gsm_mini.tokenizer import BOS_ID, CONTEXT_TOKENS, EOS_ID, prompt_text
from gsm_mini.training import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeExample(Example):
    """A judgement as token ids: the prompt is what the judge is asked, the solution its answer.

    Attributes:
        first_token: position in the prompt at which the judged solution begins.
        steps: positions of full stops, and whether all steps up to there are sound.
    """

    first_token: int
    steps: tuple[tuple[int, bool], ...]


def judge_examples(tokenizer: PreTrainedTokenizerFast, judgements: Sequence[Judgement]) -> list[JudgeExample]:
    """Judgements as token ids; those that leave no room in the context for a verdict are left out."""
    vocabulary = tokenizer.get_vocab()
    words = (vocabulary[NO], vocabulary[YES])
    texts = [prompt_text(judge_question(item.problem.question, item.completion)) for item in judgements]
    encoded = tokenizer(texts, return_offsets_mapping=True)
    examples: list[JudgeExample] = []
    for item, token_ids, offsets in zip(judgements, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # <bos> comes first and is no part of the text
        position_of = {start: position for position, (start, _) in enumerate(offsets, start=1)}
        before = len(prompt_text(item.problem.question))
        example = JudgeExample(
            prompt=[BOS_ID, *token_ids],
            solution=[words[item.is_valid], EOS_ID],
            first_token=position_of[before],
            steps=tuple((position_of[before + character], holds) for character, holds in _step_ends(item)),
        )
        if example.num_tokens <= CONTEXT_TOKENS:
            examples.append(example)
    return examples


def _step_ends(item: Judgement) -> Iterator[tuple[int, bool]]:
    """Characters of the completion at which a step ends, and whether all steps up to there are sound."""
    is_sound_so_far = True
    equations = EQUATION.finditer(item.completion)
    for equation, is_sound in zip(equations, sound_steps(item.problem, item.completion), strict=True):
        is_sound_so_far = is_sound_so_far and is_sound
        if item.completion[equation.end() :].startswith("."):
            yield equation.end(), is_sound_so_far
