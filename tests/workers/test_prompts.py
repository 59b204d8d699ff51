"""Rendering of prompts: text in, text out."""

import pytest

from service.errors import InvalidInput
from service.jobs import FewShot, PromptSpec
from workers.prompts import BadTemplate, check_prompt, render

EXAMPLES = tuple((f"q{i}", f"s{i}") for i in range(6))


def few_shot(num_shots: int, choice: str = "fixed") -> FewShot:
    return FewShot(examples=EXAMPLES, num_shots=num_shots, choice=choice)  # type: ignore[arg-type]


def roles(messages: object) -> str:
    return "".join(f"<{m['role']}>{m['content']}" for m in messages)  # type: ignore[attr-defined]


def test_render_fills_in_the_question_alone() -> None:
    assert render(PromptSpec(), "What is 3+4?", problem_id="p", seed=0) == "What is 3+4?\n"


def test_render_leaves_braces_of_a_question_alone() -> None:
    assert render(PromptSpec(), "{x} in {0}", problem_id="p", seed=0) == "{x} in {0}\n"


def test_render_puts_system_and_examples_before_the_question() -> None:
    spec = PromptSpec(template="Q: {question}\nA:", system="Be brief.", few_shot=few_shot(2))

    assert render(spec, "q?", problem_id="p", seed=0) == "Be brief.\n\nQ: q0\nA:s0\n\nQ: q1\nA:s1\n\nQ: q?\nA:"


def test_render_with_chat_template_makes_turns_of_the_examples() -> None:
    spec = PromptSpec(template="{question}", system="sys", few_shot=few_shot(1), use_chat_template=True)

    text = render(spec, "q?", problem_id="p", seed=0, apply_chat_template=roles)

    assert text == "<system>sys<user>q0<assistant>s0<user>q?"


def test_examples_per_problem_are_seeded_and_differ() -> None:
    spec = PromptSpec(few_shot=few_shot(3, "per_problem"))
    prompts = [render(spec, "q?", problem_id=f"p{i}", seed=1) for i in range(20)]

    assert prompts == [render(spec, "q?", problem_id=f"p{i}", seed=1) for i in range(20)]
    assert len(set(prompts)) > 10
    assert prompts[0] != render(spec, "q?", problem_id="p0", seed=2)


@pytest.mark.parametrize("template", ["{question} {hint}", "no field", "{question} {", "{0}", "{question.upper}"])
def test_check_prompt_refuses_templates_it_cannot_fill_in(template: str) -> None:
    with pytest.raises(BadTemplate):
        check_prompt(PromptSpec(template=template))


def test_check_prompt_names_the_unknown_field_and_the_allowed_one() -> None:
    with pytest.raises(BadTemplate, match=r"\{hint\}.*allowed: \{question\}"):
        check_prompt(PromptSpec(template="{question} {hint}"))


def test_check_prompt_refuses_more_examples_than_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"0\.\.6.*got 7"):
        check_prompt(PromptSpec(few_shot=few_shot(7)))


def test_check_prompt_accepts_doubled_braces() -> None:
    spec = PromptSpec(template="{{json}} {question}")
    check_prompt(spec)

    assert render(spec, "q", problem_id="p", seed=0) == "{json} q"
