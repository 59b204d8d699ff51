"""Tables of a comparison's report as text, the same in every form: students, rounds, costs.

Computes no statistics; a number without its basis is not written.
"""

from dataclasses import dataclass

from service import wording
from service.experiments.report import Report, Stage, Teacher
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


def cost_table(report: Report) -> Table:
    """FLOPs by stage and arm, and what of them was waste."""
    total = sum(cost.flops for cost in report.costs)

    def cells(
        stage: str, arm: str, nodes: int, samples: int, flops: float, wasted: float, paper: float, busy_s: float
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
            wording.duration(busy_s),
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
            cost.busy_s,
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
                sum(c.busy_s for c in costs),
            )
        )
    return Table(
        key="costs",
        title="What it cost, by stage",
        columns=("stage", "arm", "nodes", "samples", "FLOPs", "of all", "wasted", "FLOPs (paper)", "busy"),
        numbers=(False, False, True, True, True, True, True, True, True),
        rows=tuple(rows),
        footnote="Exact accounting unless it says paper; training counts three times forward. What another comparison "
        "had paid for already is counted here too.",
        empty="Nothing is spent yet.",
    )
