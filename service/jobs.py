"""Job documents, resolved, and the state a job is in.

A job stores what people want (`Desired`); what it *is* (`Phase`) is derived from that, its tasks and its ledger, so
that the two cannot drift apart. A spec is immutable: another sampling parameter is another job.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from service.currency import Budget
from service.importing.spec import ImportSpec
from service.models import ModelSpec
from service.reasoning import ReasoningTags
from service.sampling import SamplingSpec

DRAWING_STAGES = ("generate", "evaluate", "judge")
"""Stages under which the cost of sampling stands, by what the samples are for."""


class Desired(StrEnum):
    """What people want of a job."""

    run = "run"
    pause = "pause"
    cancel = "cancel"


class Phase(StrEnum):
    """What a job is doing. The last four are terminal."""

    queued = "queued"
    preparing = "preparing"
    running = "running"
    pausing = "pausing"
    paused = "paused"
    cancelling = "cancelling"
    succeeded = "succeeded"
    finished_with_errors = "finished_with_errors"
    failed = "failed"
    cancelled = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job will never change again."""
        return self in (Phase.succeeded, Phase.finished_with_errors, Phase.failed, Phase.cancelled)

    @property
    def is_done(self) -> bool:
        """Whether all results are there that ever will be, and nobody ended it before."""
        return self in (Phase.succeeded, Phase.finished_with_errors)


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShot:
    """Worked examples before the question.

    Args:
        examples: pairs of question and solution.
        num_shots: how many of them a prompt shows.
        choice: the same first ones for every prompt, or drawn anew for each problem by the job's seed.
    """

    examples: tuple[tuple[str, str], ...] = ()
    num_shots: int = 0
    choice: Literal["fixed", "per_problem"] = "fixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpec:
    """How a problem becomes a prompt.

    Args:
        template: text with `{question}` for the unsolved problem; a worked example is the same text with its solution
            after it.
        system: system text; with a chat template the system message, otherwise put before everything.
        use_chat_template: render messages through the tokenizer's own chat template.
        template_kwargs: what the chat template takes beside the messages, e.g. enable_thinking.
        reasoning_tags: between which the model thinks before it answers; None is the usual ones.
        add_bos: put the tokenizer's beginning-of-sequence id first where the tokenizer does not do so itself.
    """

    template: str = "{question}\n"
    system: str | None = None
    few_shot: FewShot = field(default_factory=FewShot)
    use_chat_template: bool = False
    template_kwargs: dict[str, bool | int | float | str] = field(default_factory=dict[str, bool | int | float | str])
    reasoning_tags: ReasoningTags | None = None
    add_bos: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way in which a job draws: a model, a prompt and a sampling, under a name of their own."""

    name: str
    model: str
    prompt: PromptSpec
    sampling: SamplingSpec

    def shares_prompts(self, other: "Arm") -> bool:
        """Whether the same prompts serve both: what is rendered, for which model, with how much room left."""
        return (self.model, self.prompt, self.sampling.max_tokens) == (
            other.model,
            other.prompt,
            other.sampling.max_tokens,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationSpec:
    """Which strategy spends the budget.

    Args:
        strategy: a name in `service.allocation.STRATEGIES`.
        target_correct: unique correct solutions wanted per problem (`until_correct`).
        max_samples: most samples for one problem; None means no cap (`until_correct`, `adastar`).
        counts: which verdict counts as correct: the answer alone, or the answer and the step check.
        collect: the job ends once it has so many right answers; None goes on until the strategy or the budget ends.
        history: ids of the jobs of earlier rounds on the same problems, the oldest first (`adastar`).
        equal: what every arm gets as much of: samples, or the budget (`uniform`).
    """

    strategy: str = "uniform"
    target_correct: int = 1
    max_samples: int | None = None
    counts: Literal["answer", "verified"] = "answer"
    collect: int | None = None
    history: tuple[str, ...] = ()
    equal: Literal["samples", "budget"] = "samples"

    @property
    def is_even(self) -> bool:
        """Whether every problem gets as many samples, whatever they turn out to be: estimates need no correction."""
        return self.strategy == "uniform" and self.collect is None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """A resolved job document: every default filled in, every name checked.

    Args:
        models: every model that it draws with, once.
        prompt: of every arm, where each model is one; not looked at where `arms` are given.
        sampling: likewise.
        arms: where arms differ in more than their models; read `all_arms`, which is never empty.
        stage: what its samples are for, which their cost stands under: data, measuring a model, or judging samples.
        imported: where its samples come from, if they were not drawn here; then its budget is zero.
    """

    name: str
    problems: str
    models: tuple[str, ...]
    budget: Budget
    allocation: AllocationSpec = field(default_factory=AllocationSpec)
    prompt: PromptSpec = field(default_factory=PromptSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    scorers: tuple[str, ...] = ("math_answer",)
    seed: int = 0
    max_problems: int | None = None
    stage: Literal["generate", "evaluate", "judge"] = "generate"
    imported: ImportSpec | None = None
    arms: tuple[Arm, ...] = ()

    @property
    def all_arms(self) -> tuple[Arm, ...]:
        """What it draws with, in order; without arms of its own each model is one, under the model's name."""
        return self.arms or tuple(
            Arm(name=model, model=model, prompt=self.prompt, sampling=self.sampling) for model in self.models
        )

    @property
    def prompt_arms(self) -> tuple[Arm, ...]:
        """The first arm of each set of prompts: what is prepared for it serves all that share them."""
        return tuple(arm for arm in self.all_arms if self.prompts_of(arm.name) == arm.name)

    def arm(self, name: str) -> Arm:
        """The arm of that name.

        Raises:
            ValueError: no such arm.
        """
        return self.all_arms[self.arm_index(name)]

    def arm_index(self, name: str) -> int:
        """Its place among all arms.

        Raises:
            ValueError: no such arm.
        """
        return [arm.name for arm in self.all_arms].index(name)

    def prompts_of(self, name: str) -> str:
        """Name of the first arm with the same prompts."""
        mine = self.arm(name)
        return next(arm.name for arm in self.all_arms if arm.shares_prompts(mine))


def is_unpriced(models: Iterable[ModelSpec]) -> bool:
    """Whether nobody knows how many FLOPs a job's samples take, for a model of it is not registered, or elsewhere."""
    return any(not model.cost.is_traced for model in models)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A stored job."""

    id: str
    spec: JobSpec
    desired: Desired
    created_at: datetime
    phase: Phase
    ended_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a job's names stood for when it was submitted."""

    models: tuple[ModelSpec, ...]
    problems_path: str
    num_problems: int
    problems_fingerprint: str
    import_paths: tuple[str, ...] = ()
