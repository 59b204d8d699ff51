"""How a problem becomes a prompt, as it comes in."""

import string
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import MAX_INT, InputModel, LongText, Whole, refuse_unstorable

RESERVED_KWARGS = (
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations", "documents",
    "max_length", "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "self",
    "tokenize", "tokenizer_kwargs", "tools", "truncation",
)  # fmt: skip
"""Arguments of the library that renders, or texts of a template's own, which a document does not set."""


class ExampleDocument(InputModel):
    """A worked example."""

    question: LongText
    solution: LongText


class FewShotDocument(InputModel):
    """Worked examples before the question."""

    examples: list[ExampleDocument] = Field(default_factory=list, max_length=200)
    num_shots: Whole | None = Field(
        default=None, ge=0, le=200, description="How many of them a prompt shows; all without this."
    )
    choice: Literal["fixed", "per_problem"] = Field(
        default="fixed", description="The first ones for every prompt, or drawn anew for each problem by the seed."
    )

    @model_validator(mode="after")
    def _check_shots(self) -> Self:
        if self.num_shots is not None and self.num_shots > len(self.examples):
            raise PydanticCustomError(
                "too_many_shots",
                "num_shots of at most {allowed}, the number of examples",
                {"allowed": len(self.examples), "got": self.num_shots},
            )
        return self


ArgumentName = Annotated[str, Field(max_length=100)]


def _check_argument(value: object) -> object:
    """Says in one sentence what a union of types would say of each."""
    is_number = isinstance(value, int | float) and abs(value) <= MAX_INT  # not NaN, which no comparison holds for
    if is_number or (isinstance(value, str) and len(value) <= 1000 and refuse_unstorable(value) == value):
        return value
    raise PydanticCustomError(
        "argument",
        "true, false, a finite number, or a text of at most 1,000 characters",
        {"got": repr(value)[:80]},
    )


Argument = Annotated[bool | int | float | str, BeforeValidator(_check_argument)]


class ReasoningTagsDocument(InputModel):
    """The texts between which a model thinks before it answers."""

    open: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]
    close: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]

    @model_validator(mode="after")
    def _check_apart(self) -> Self:
        if self.open in self.close or self.close in self.open:
            raise PydanticCustomError(
                "tags", "two texts of which neither contains the other", {"got": f"{self.open!r} and {self.close!r}"}
            )
        return self


class PromptDocument(InputModel):
    """How a problem becomes a prompt."""

    template: LongText = Field(
        default="plain", description="`plain`, which is the question on a line, or a text with `{question}` in it."
    )
    system: LongText | None = Field(default=None, description="Put before everything, or the chat's system message.")
    few_shot: FewShotDocument = Field(default_factory=FewShotDocument)
    use_chat_template: bool = Field(default=False, description="Render through the tokenizer's own chat template.")
    template_kwargs: dict[ArgumentName, Argument] = Field(
        default_factory=dict[str, bool | int | float | str],
        max_length=20,
        description="What the chat template takes beside messages, e.g. {enable_thinking: false}.",
    )
    reasoning_tags: ReasoningTagsDocument | None = Field(
        default=None, description="Where a thinking model thinks; scorers read what follows. <think>, </think>."
    )
    add_bos: bool = Field(default=True, description="Begin with the tokenizer's beginning-of-sequence token.")

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        if self.template != "plain" and not _is_template(self.template):
            raise PydanticCustomError(
                "template",
                "'plain', or a text with {question} in it and no other field; a literal brace is written twice",
                {"got": repr(self.template[:80])},
            )
        if self.template_kwargs and not self.use_chat_template:
            raise PydanticCustomError(
                "kwargs", "template_kwargs with use_chat_template: true alone", {"got": "them without it"}
            )
        for name in self.template_kwargs:
            if not name.isidentifier() or name in RESERVED_KWARGS or name.endswith("_token"):
                allowed = (
                    "names of arguments that a chat template asks for, none that ends in _token and none of "
                    f"{', '.join(RESERVED_KWARGS)}"
                )
                raise PydanticCustomError("kwarg", "{allowed}", {"allowed": allowed, "got": name[:100]})
        return self


def _is_template(text: str) -> bool:
    """Whether a question fits into `text`: no other field, no conversion, no width (which could ask for gigabytes)."""
    try:
        fields = [field[1:] for field in string.Formatter().parse(text) if field[1] is not None]
    except ValueError:
        return False
    return bool(fields) and all(field == ("question", "", None) for field in fields)
