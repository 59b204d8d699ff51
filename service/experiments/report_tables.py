"""Tables of a comparison's report as text, the same in every form: students, rounds, costs.

Computes no statistics; a number without its basis is not written.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service import wording
from service.devices import DeviceTime
from service.experiments.report import Report, Stage, StageCost, Teacher
from service.experiments.report_words import RULE, signed
from service.experiments.results import StudentFound
from service.experiments.spec import Split
from service.report import Comparison, Form
from service.report_words import Row, measured_text

TEACHER_WORDS = {
    Teacher.itself: "its own",
    Teacher.larger: "a larger model",
    Teacher.smaller: "a smaller model",
    Teacher.equal: "a model of its size",
    Teacher.mixed: "several models",
    Teacher.unknown: "a model of unknown size",
}
STAGE_WORDS = {
    Stage.draw: "draw samples",
    Stage.ask: "ask a judge",
    Stage.judge: "judge samples",
    Stage.select: "select",
    Stage.train: "train",
    Stage.validate: "validate checkpoints",
    Stage.greedy: "test, greedy",
    Stage.majority: "test, votes",
    Stage.transfer: "test, transfer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as text.

    Args:
        numbers: for each column, whether it holds numbers.
        footnote: how to read it.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    footnote: str
    empty: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """What one budget bought: `rows` have a cell for each arm of `comparison`."""

    num_samples: int
    comparison: Comparison
    rows: tuple[Row, ...]


def student_table(report: Report) -> Table:
    """Students by whose data they learnt from: accuracy, what it was before, the difference to the reference."""
    shown = [(seed, f"seed {seed}") for seed in report.seeds] if len(report.seeds) > 1 else []
    has_steps = report.checker is not None
    columns = ["student", "data", "drawn by", "budget", "measure", "accuracy [95 %]", "before"]
    columns += [f"against {report.reference} [95 %]", "differs", *(["false positives [95 %]"] if has_steps else [])]
    columns += [name for _, name in shown]
    rows: list[tuple[str, ...]] = []
    for found in report.found:
        difference = found.difference
        cells = [
            found.student,
            found.arm,
            _teacher_words(report, found),
            wording.count(found.num_samples),
            found.measure,
            measured_text(Form.share, found.accuracy),
            "" if found.base is None else wording.share(found.base),
            "reference" if difference is None else signed(found),
            "" if difference is None else "yes" if difference.is_difference else "no",
        ]
        if has_steps:
            cells.append("" if found.false_positives is None else measured_text(Form.rate, found.false_positives))
        rows.append((*cells, *(wording.share(value) for value in found.by_seed[: len(shown)])))
    words = {"student", "data", "drawn by", "measure", "differs"}
    return Table(
        key="students",
        title="Students",
        columns=tuple(columns),
        numbers=tuple(column not in words for column in columns),
        rows=tuple(rows),
        footnote=f"Accuracies are absolute, over {wording.plural(report.num_problems(Split.test), 'test problem')}"
        f"{_transfer_words(report)} and {wording.plural(len(report.seeds), 'seed')}; differences are absolute, paired "
        f"by problem and seed. {RULE}",
        empty="No student is measured yet: one is shown when every seed of it is.",
    )


def _teacher_words(report: Report, found: StudentFound) -> str:
    words = TEACHER_WORDS[report.teachers[found.student][found.arm]]
    rounds = report.rounds_of.get(found.arm)
    return words if rounds is None else f"{words}, in {rounds} rounds"


def round_table(report: Report) -> Table:
    """What each round of self-training drew, what it cost, and how good the student was after it."""
    rows = tuple(
        (
            found.student,
            found.arm,
            wording.count(found.num_samples),
            f"{found.round} of {report.rounds_of[found.arm]}",
            wording.count(round(found.samples)),
            wording.count(round(found.correct)),
            wording.count(round(found.rows)),
            wording.flops(found.draw_flops),
            wording.flops(found.train_flops),
            "" if found.accuracy is None else measured_text(Form.share, found.accuracy),
        )
        for found in report.rounds
    )
    columns = ("student", "data", "budget", "round", "samples", "right", "training rows")
    columns += ("FLOPs drawing", "FLOPs training", "greedy after [95 %]")
    return Table(
        key="rounds",
        title="Rounds of self-training",
        columns=columns,
        numbers=tuple(column not in ("student", "data", "round") for column in columns),
        rows=rows,
        footnote=f"Means over {wording.plural(len(report.seeds), 'seed')}; FLOPs are useful ones, exact accounting. "
        "The first round's data is drawn once and serves all students.",
        empty="No round is trained yet.",
    )


def _transfer_words(report: Report) -> str:
    num_problems = report.num_problems(Split.transfer)
    return f" ({wording.plural(num_problems, 'problem')} for transfer)" if num_problems else ""


_OF_ARM = {
    "drawing": (Stage.draw,),
    "judging": (Stage.ask, Stage.judge),
    "finetuning": (Stage.train,),
    "measuring": (Stage.validate, Stage.greedy, Stage.majority, Stage.transfer),
}
"""What an arm pays for, and the stages that are it."""


def arm_cost_table(report: Report) -> Table:
    """What each arm cost, over all its budgets: FLOPs and device time of drawing, judging, finetuning, measuring."""
    shown = {name: stages for name, stages in _OF_ARM.items() if any(c.arm and c.stage in stages for c in report.costs)}

    def cells(arm: str) -> tuple[str, ...]:
        mine = [cost for cost in report.costs if cost.arm == arm]
        of_parts = [[cost for cost in mine if cost.stage in stages] for stages in shown.values()]
        return (arm, *(_cost_words(costs) for costs in of_parts), _cost_words([c for costs in of_parts for c in costs]))

    return Table(
        key="arm_costs",
        title="What each arm cost",
        columns=("arm", *shown, "in all"),
        numbers=(False, *(True for _ in shown), True),
        rows=tuple(cells(arm) for arm in report.arms if any(cost.arm == arm for cost in report.costs)),
        footnote="FLOPs in exact accounting, waste included, and device time, over all budgets and seeds. Measuring "
        "students before training belongs to no arm.",
        empty="Nothing is spent yet.",
    )


def _cost_words(costs: Sequence[StageCost]) -> str:
    if not costs:
        return ""
    time = wording.device_hours(sum(cost.gpu_s for cost in costs), sum(cost.cpu_s for cost in costs))
    return f"{wording.flops(sum(cost.flops for cost in costs))} FLOPs, {time}"


def cost_table(report: Report) -> Table:
    """FLOPs and device time by stage and arm, and what of the FLOPs was waste."""
    total = sum(cost.flops for cost in report.costs)

    def cells(
        stage: str, arm: str, nodes: int, samples: int, flops: float, wasted: float, paper: float, time: DeviceTime
    ) -> tuple[str, ...]:
        return (
            stage,
            arm,
            wording.count(nodes),
            wording.count(samples) if samples else "",
            wording.flops(flops),
            wording.percent(flops / total) if total else "",
            wording.percent(wasted / flops) if flops else "",
            wording.flops(paper),
            wording.device_hours(time.gpu_s, time.cpu_s),
        )

    rows = [
        cells(
            STAGE_WORDS[cost.stage],
            cost.arm or "before training",
            cost.num_nodes,
            cost.samples,
            cost.flops,
            cost.wasted_flops,
            cost.flops_paper,
            DeviceTime(gpu_s=cost.gpu_s, cpu_s=cost.cpu_s),
        )
        for cost in report.costs
    ]
    if rows:
        costs = report.costs
        rows.append(
            cells(
                "all",
                "",
                sum(c.num_nodes for c in costs),
                sum(c.samples for c in costs),
                total,
                sum(c.wasted_flops for c in costs),
                sum(c.flops_paper for c in costs),
                DeviceTime(gpu_s=sum(c.gpu_s for c in costs), cpu_s=sum(c.cpu_s for c in costs)),
            )
        )
    return Table(
        key="costs",
        title="What it cost, by stage",
        columns=("stage", "arm", "nodes", "samples", "FLOPs", "of all", "wasted", "FLOPs (paper)", "device time"),
        numbers=(False, False, True, True, True, True, True, True, True),
        rows=tuple(rows),
        footnote="Exact accounting unless it says paper; training counts three times forward. Device time is what "
        "engines, trainers and scorers worked, times the GPUs they held, or cores where they held none. What another "
        "comparison had paid for already is counted here too.",
        empty="Nothing is spent yet.",
    )
