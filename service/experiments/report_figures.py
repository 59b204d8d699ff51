"""Figures of a comparison's report: every one of them from the start, empty until there is something to draw.

A page that is open can then fill them in place. Colours follow the models that drew the data.
"""

from collections.abc import Mapping, Sequence

from service import figures, wording
from service.experiments.report import Report
from service.experiments.results import StudentFound
from service.figures import Figure, students
from service.figures.rounds import AfterRound, rounds_figure
from service.figures.students import Dot, Trace

_TOLD = ("greedy", "transfer")


def report_figures(
    report: Report, drawn: Sequence[Figure], colours: Mapping[str, str], models: Mapping[str, str]
) -> tuple[Figure, ...]:
    """All figures in the order in which a report shows them.

    Args:
        drawn: what the largest budget bought, see `service.job_report`.
        colours: of models.
        models: the model that gives an arm its colour, by arm.
    """
    accuracies = [
        accuracy_of(report, student, base, index, colours, models)
        for index, (student, base) in enumerate(report.students)
    ]
    known = {figure.key: figure for figure in drawn}
    data = [known.get(figure.key, figure) for figure in _empty_data(report)]
    if not accuracies:
        return tuple(data)
    rounds = [rounds_of(report, colours, models)] if report.rounds_of else []
    return (*accuracies, differences_of(report, colours, models), *rounds, *data, losses_of(report, colours))


def _empty_data(report: Report) -> list[Figure]:
    """What a budget buys, before anything is drawn; the same keys as afterwards."""
    checker = report.checker
    empty = [figures.coverage_figure([], {}, accounting=report.accounting)]
    if checker is not None:
        empty.append(figures.verified_coverage_figure([], {}, accounting=report.accounting, checker=checker))
    empty.append(figures.diversity_figure([], {}, accounting=report.accounting, rule="exact text"))
    if checker is not None:
        empty.append(figures.false_positive_figure([], {}, checker=checker))
    return empty


def accuracy_of(
    report: Report, student: str, base: str, index: int, colours: Mapping[str, str], models: Mapping[str, str]
) -> Figure:
    """Greedy accuracy of one student on every arm's data."""
    found = [item for item in report.found if item.student == student and item.measure == "greedy"]
    dots = [
        Dot(
            group="" if len(report.budgets) == 1 else f"budget {item.num_samples}",
            row=item.arm,
            arm=item.arm,
            model=models[item.arm],
            value=item.accuracy.value,
            low=item.accuracy.low,
            high=item.accuracy.high,
            basis=_basis(item),
            by_seed=item.by_seed,
        )
        for item in found
    ]
    before = next((item.base for item in found if item.base is not None), None)
    return students.accuracy_figure(
        student, dots, colours, report.arms, key=f"accuracy-{index}", base=before, base_name=base
    )


def differences_of(report: Report, colours: Mapping[str, str], models: Mapping[str, str]) -> Figure:
    """Every student's difference to the one on the reference's data, greedy and transfer."""
    budgets = len(report.budgets) > 1
    others = len(report.arms) > 2
    dots = [
        Dot(
            group=item.student,
            row=", ".join(
                [
                    item.measure,
                    *([item.arm] if others else []),
                    *([f"budget {item.num_samples}"] if budgets else []),
                ]
            ),
            arm=item.arm,
            model=models[item.arm],
            value=item.difference.estimate.value,
            low=item.difference.estimate.low,
            high=item.difference.estimate.high,
            is_one=item.difference.is_difference,
            basis=_basis(item),
        )
        for item in report.found
        if item.difference is not None and (item.measure in _TOLD or item.measure == _largest_vote(report))
    ]
    return students.difference_figure(dots, colours, report.arms, reference=report.reference)


def rounds_of(report: Report, colours: Mapping[str, str], models: Mapping[str, str]) -> Figure:
    """Every measured round of arms that have several, with what it and those before it cost."""
    points: list[AfterRound] = []
    spent: dict[str, float] = {}
    for found in report.rounds:
        budget = f", budget {found.num_samples}" if len(report.budgets) > 1 else ""
        line = f"{found.student} on {found.arm}{budget}"
        spent[line] = spent.get(line, 0.0) + found.draw_flops + found.train_flops
        if found.accuracy is not None:
            points.append(
                AfterRound(
                    line=line,
                    arm=found.arm,
                    model=models[found.arm],
                    round=found.round,
                    flops=spent[line],
                    value=found.accuracy.value,
                    low=found.accuracy.low,
                    high=found.accuracy.high,
                )
            )
    return rounds_figure(points, colours, report.arms)


def losses_of(report: Report, colours: Mapping[str, str]) -> Figure:
    """Losses of all runs that have ended."""
    traces = [
        Trace(
            name=f"{curve.student} on {curve.arm}, budget {curve.num_samples}, {curve.run}",
            arm=curve.arm,
            model=curve.model,
            points=curve.points,
        )
        for curve in report.losses
    ]
    return students.run_losses_figure(traces, colours, report.arms)


def _largest_vote(report: Report) -> str:
    sizes = [int(item.measure[4:]) for item in report.found if item.measure.startswith("maj@")]
    return f"maj@{max(sizes)}" if sizes else ""


def _basis(item: StudentFound) -> str:
    return f"{wording.plural(item.num_problems, 'problem')}, {wording.plural(len(item.by_seed), 'seed')}"
