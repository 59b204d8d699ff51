"""The job document: the same by REST, SDK and job file. Documented in full in the OpenAPI description.

Checks what can be checked without a catalogue; names and lengths are checked in `api/resolve.py`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.arms_document import (
    MAX_ARMS,
    ArmDocument,
    JobSamplingDocument,
    NamedPromptDocument,
    NamedSamplingDocument,
)
from api.wire.base import MAX_INT, InputModel, Line, Name, Whole
from api.wire.prompt_document import PromptDocument

MAX_LEDGER_FLOPS = 9e24
"""What 64 bits of MFLOP hold, far beyond what any machine will do."""
MAX_USD = 4e6
"""Up to which a float still counts single nano-USD, which from 2**23 on it does not."""
MAX_HOURS = 1e9
CURRENCIES = ("flops", "tokens", "samples_per_problem", "usd", "gpu_hours")


class BudgetDocument(InputModel):
    """A limit: exactly one of the fields. Hard, but for `gpu_hours`, which what runs at the end may pass."""

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
    usd: float | None = Field(
        default=None,
        gt=0,
        le=MAX_USD,
        allow_inf_nan=False,
        description="Price of all tokens together, for models whose tokens have a price; kept in nano-USD.",
    )

    gpu_hours: float | None = Field(
        default=None,
        gt=0,
        le=MAX_HOURS,
        allow_inf_nan=False,
        description="Time that engines draw, times the GPUs they hold; of cores where they hold no GPU. Samples cannot "
        "be priced by it beforehand: what runs when it is used up is finished, and shown as overshoot.",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_cpu_hours(cls, value: Any) -> Any:
        if isinstance(value, dict) and "cpu_hours" in value:
            raise PydanticCustomError(
                "cpu_hours",
                "gpu_hours, which are CPU-hours where engines hold no GPU",
                {"got": "cpu_hours"},
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

    equal: Literal["samples", "budget"] = Field(
        default="samples", description="What every arm gets as much of (uniform): samples, or the budget."
    )

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_correct is not None and self.k is not None:
            raise PydanticCustomError(
                "two_targets", "one of target_correct and k, which mean the same", {"got": "both of them"}
            )
        return self


class JobDocument(InputModel):
    """A generation job: problems, models, a budget, and how to sample."""

    name: Line | None = Field(default=None, description="For people; made from problems and models without one.")
    problems: Name = Field(
        description="A registered problem set, or the id of a selection with `ask`.", examples=["gsm-mini/train"]
    )
    models: list[Name] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_ARMS,
        description="Registered models; those of `arms`, where there are any.",
    )
    budget: BudgetDocument
    accounting: Literal["exact", "paper"] = Field(
        default="exact",
        description="How FLOPs are counted: `exact`, every forward FLOP with prompt and attention; `paper`, "
        "2 x parameters x completion tokens.",
    )
    allocation: AllocationDocument = Field(default_factory=AllocationDocument)
    prompt: PromptDocument = Field(default_factory=PromptDocument)
    prompts: list[NamedPromptDocument] = Field(
        default_factory=list[NamedPromptDocument], max_length=16, description="In place of `prompt`: each makes arms."
    )
    sampling: JobSamplingDocument = Field(default_factory=JobSamplingDocument)
    samplings: list[NamedSamplingDocument] = Field(
        default_factory=list[NamedSamplingDocument],
        max_length=16,
        description="In place of `sampling`: each makes arms.",
    )
    arms: list[ArmDocument] = Field(
        default_factory=list[ArmDocument],
        max_length=100,
        description="In place of all combinations of models, prompts and samplings: these.",
    )
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
        for name in ("models", "scorers", "prompts", "samplings", "arms"):
            values = [item if isinstance(item, str) else item.name for item in getattr(self, name) or []]
            if len(set(values)) != len(values):
                raise PydanticCustomError("repeated", "{name} that differ", {"name": name, "got": ", ".join(values)})
        self._check_arms()
        if self.accounting == "paper" and self.budget.flops is None:
            raise PydanticCustomError(
                "accounting", "accounting 'paper' only with budget.flops", {"got": "another currency"}
            )
        return self

    def _check_arms(self) -> None:
        """One way to say what is drawn with: models with prompts and samplings, or arms."""
        given = [name for name in ("prompts", "samplings") if getattr(self, name)]
        given += ["sampling.temperatures"] if self.sampling.temperatures else []
        if self.arms and given:
            raise PydanticCustomError(
                "arms", "arms, or lists of which all combinations are made", {"got": f"arms and {' and '.join(given)}"}
            )
        if not self.arms and self.models is None:
            raise PydanticCustomError("models", "models, or arms", {"got": "neither models nor arms"})
        of_arms = list(dict.fromkeys(arm.model for arm in self.arms))
        if self.arms and self.models is not None and self.models != of_arms:
            raise PydanticCustomError(
                "models",
                "no models, or those of the arms in their order: {allowed}",
                {"allowed": ", ".join(of_arms), "got": f"arms and models {', '.join(self.models)}"},
            )
        for one, several in (("prompt", "prompts"), ("sampling", "samplings")):
            if one in self.model_fields_set and getattr(self, several):
                raise PydanticCustomError(
                    "two_fields", "one of {one} and {several}", {"one": one, "several": several, "got": "both of them"}
                )
