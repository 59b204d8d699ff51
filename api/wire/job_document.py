"""The job document: the same by REST, SDK and job file. Documented in full in the OpenAPI description.

Checks what can be checked without a catalogue; names and lengths are checked in `api/resolve.py`.
"""

import json
import re
import string
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import MAX_INT, InputModel, Line, LongText, Name, Whole, refuse_unstorable

MAX_LEDGER_FLOPS = 9e24
"""What 64 bits of MFLOP hold, far beyond what any machine will do."""
CURRENCIES = ("flops", "tokens", "samples_per_problem")
RESERVED_KWARGS = (
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "conversations", "documents",
    "max_length", "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "self",
    "tokenize", "tokenizer_kwargs", "tools", "truncation",
)  # fmt: skip
"""Arguments of the library that renders, or texts of a template's own, which a document does not set."""
MAX_SCHEMA_CHARACTERS = 20_000
_OWN = "Left out, the model's own: what its generation_config.json says, or nothing."
_LATER_CURRENCIES = ("usd", "gpu_hours")


class BudgetDocument(InputModel):
    """A hard limit: exactly one of the fields."""

    flops: float | None = Field(
        default=None,
        gt=0,
        le=MAX_LEDGER_FLOPS,
        allow_inf_nan=False,
        description="Forward FLOPs of all samples together, kept in whole MFLOP (10^6).",
    )
    tokens: Whole | None = Field(default=None, ge=1, le=10**18, description="Prompt and completion tokens together.")
    samples_per_problem: float | None = Field(
        default=None,
        gt=0,
        le=1_000_000,
        allow_inf_nan=False,
        description="Samples for each problem, over all models; of a fraction, a random part of the problems gets one.",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_later_currencies(cls, value: Any) -> Any:
        for name in _LATER_CURRENCIES:
            if isinstance(value, dict) and name in value:
                raise PydanticCustomError(
                    "not_available",
                    "one of {allowed}; {name} is not available yet",
                    {"allowed": ", ".join(CURRENCIES), "name": name, "got": f"{name}"},
                )
        return value

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in CURRENCIES if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "one_currency",
                "exactly one of {allowed}",
                {"allowed": ", ".join(CURRENCIES), "got": ", ".join(given) or "none of them"},
            )
        return self


class AllocationDocument(InputModel):
    """Which strategy spends the budget."""

    strategy: str = Field(default="uniform", max_length=100, description="`uniform`, `until_correct` or `adastar`.")
    target_correct: Whole | None = Field(
        default=None, ge=1, le=1000, description="Unique correct solutions wanted per problem (until_correct); 1."
    )
    k: Whole | None = Field(default=None, ge=1, le=1000, description="The same as `target_correct`.")
    max_samples: Whole | None = Field(
        default=None, ge=1, le=1_000_000, description="Most samples for one problem (until_correct, adastar); no cap."
    )
    counts: Literal["answer", "verified"] = Field(
        default="answer", description="What counts as correct: the answer, or the answer and every step of it."
    )
    collect: Whole | None = Field(
        default=None, ge=1, le=MAX_INT, description="The job ends once it has so many right answers; never before."
    )
    history: list[Name] = Field(
        default_factory=list,
        max_length=100,
        description="Jobs of earlier rounds on the same problems, the oldest first (adastar).",
    )

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_correct is not None and self.k is not None:
            raise PydanticCustomError(
                "two_targets", "one of target_correct and k, which mean the same", {"got": "both of them"}
            )
        return self


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


class StructureDocument(InputModel):
    """What a completion must look like: exactly one of the fields."""

    json_schema: dict[str, Any] | None = Field(default=None, description="A JSON schema.")
    regex: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(refuse_unstorable)] | None = Field(
        default=None,
        description="A regular expression that the whole completion matches, in the engine's dialect: no lookaround.",
    )
    choice: list[Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(refuse_unstorable)]] | None = (
        Field(default=None, min_length=1, max_length=1000, description="The texts that it may be.")
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise PydanticCustomError(
                "one_structure", "exactly one of {allowed}", {"allowed": allowed, "got": ", ".join(given) or "none"}
            )
        try:
            schema = json.dumps(self.json_schema, allow_nan=False, ensure_ascii=False)
            schema.encode()
        except (ValueError, RecursionError) as error:
            raise PydanticCustomError("schema", "a JSON schema", {"got": str(error)[:200]}) from error
        if len(schema) > MAX_SCHEMA_CHARACTERS:
            raise PydanticCustomError(
                "schema", "a schema of at most {allowed} characters", {"allowed": MAX_SCHEMA_CHARACTERS, "got": "more"}
            )
        try:
            re.compile(self.regex or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise PydanticCustomError("regex", "a regular expression", {"got": str(error)[:200]}) from error
        return self


class SamplingDocument(InputModel):
    """How completions are drawn."""

    temperature: float = Field(default=0.7, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False, description=_OWN)
    top_k: Whole | None = Field(default=None, ge=0, le=MAX_INT, description=f"{_OWN} 0 is all tokens.")
    min_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False, description=_OWN)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False, description=_OWN)
    max_tokens: Whole | Literal["auto"] = Field(
        default="auto", description="Most tokens of a completion; `auto` is what each prompt leaves of the context."
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]] = Field(
        default_factory=list, max_length=16
    )
    structure: StructureDocument | None = Field(default=None, description="What a completion must look like.")

    @model_validator(mode="after")
    def _check_max_tokens(self) -> Self:
        if self.max_tokens != "auto" and not 1 <= self.max_tokens <= 10_000_000:
            raise PydanticCustomError(
                "max_tokens", "max_tokens of at least 1, or 'auto'", {"got": str(self.max_tokens)[:40]}
            )
        return self


class JobDocument(InputModel):
    """A generation job: problems, models, a budget, and how to sample."""

    name: Line | None = Field(default=None, description="For people; made from problems and models without one.")
    problems: Name = Field(
        description="A registered problem set, or the id of a selection with `ask`.", examples=["gsm-mini/train"]
    )
    models: list[Name] = Field(min_length=1, max_length=16, description="Registered models.")
    budget: BudgetDocument
    accounting: Literal["exact", "paper"] = Field(
        default="exact",
        description="How FLOPs are counted: `exact`, every forward FLOP with prompt and attention; `paper`, "
        "2 x parameters x completion tokens.",
    )
    allocation: AllocationDocument = Field(default_factory=AllocationDocument)
    prompt: PromptDocument = Field(default_factory=PromptDocument)
    sampling: SamplingDocument = Field(default_factory=SamplingDocument)
    scorers: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=lambda: ["math_answer"],
        max_length=8,
        description="`math_answer`, `math_latex`, `steps`, `yes_no`.",
    )
    seed: Whole = Field(default=0, ge=0, le=MAX_INT)
    max_problems: Whole | None = Field(
        default=None, ge=1, le=MAX_INT, description="Use only the first problems of the set."
    )

    stage: Literal["generate", "evaluate", "judge"] = Field(
        default="generate",
        description="What the samples are for: data, measuring a model, or judging other samples. Costs stand under "
        "it.",
    )

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        for name in ("models", "scorers"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise PydanticCustomError("repeated", "{name} that differ", {"name": name, "got": ", ".join(values)})
        if self.accounting == "paper" and self.budget.flops is None:
            raise PydanticCustomError(
                "accounting", "accounting 'paper' only with budget.flops", {"got": "another currency"}
            )
        return self
