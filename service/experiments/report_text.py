"""A report as people read it: its words and tables put together, the same for every form. Computes no statistics."""

from dataclasses import dataclass

from service import wording
from service.experiments.report import Report
from service.experiments.report_data import data_rows
from service.experiments.report_tables import DataTable, Table, arm_cost_table, cost_table, round_table, student_table
from service.experiments.report_words import MATCH_WORDS, RULE, findings, headline, limits
from service.report_words import parameters_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportText:
    """A report as people read it, in every form.

    Args:
        rounds: None where every arm draws once.
        made: name and value of what made the numbers.
    """

    id: str
    title: str
    headline: str
    findings: tuple[str, ...]
    rule: str
    has_students: bool
    students: Table
    rounds: Table | None
    data: tuple[DataTable, ...]
    arm_costs: Table
    costs: Table
    limits: tuple[str, ...]
    made: tuple[tuple[str, str], ...]
    document: str


def report_text(report: Report) -> ReportText:
    """The words and tables of a report."""
    return ReportText(
        id=report.id,
        title=report.title,
        headline=headline(report),
        findings=tuple(findings(report)),
        rule=RULE,
        has_students=bool(report.students),
        students=student_table(report),
        rounds=round_table(report) if report.rounds_of else None,
        data=tuple(
            DataTable(num_samples=bought.num_samples, comparison=bought.data, rows=tuple(data_rows(bought)))
            for bought in report.bought
        ),
        arm_costs=arm_cost_table(report),
        costs=cost_table(report),
        limits=tuple(limits(report)),
        made=tuple(_made(report)),
        document=report.document,
    )


def _made(report: Report) -> list[tuple[str, str]]:
    sets = [
        (f"{used.split} problems", f"{used.name}, {used.num_problems:,} used, {used.fingerprint[:19]}")
        for used in report.sets
    ]
    models = [
        (f"model {model.name}", f"{parameters_text(model.parameters)} parameters, {model.revision[:19]}")
        for model in report.models
    ]
    seeds = ", ".join(map(str, report.seeds))
    return [
        ("equal by", f"{MATCH_WORDS[report.match]}, {report.reference} as reference"),
        ("budgets", f"{', '.join(map(str, report.budgets))} samples a problem of {report.reference}"),
        ("accounting", f"{report.accounting} unless said otherwise"),
        ("reasoning judged by", report.checker or "nothing"),
        *sets,
        *models,
        ("seed of data and tests", str(report.seed)),
        *([("seeds of training", seeds)] if report.students else []),
        ("written", wording.timestamp(report.created_at)),
        ("versions", ", ".join(f"{name} {version}" for name, version in report.versions)),
    ]
