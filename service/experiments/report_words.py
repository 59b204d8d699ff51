"""The report of a comparison in words: a headline, findings, limits. Every form takes its text from here.

A difference is called one only when its interval excludes zero; every number says whether it is absolute or relative
and on how many problems and seeds it rests. Computes no statistics.
"""

import math

from service import wording
from service.experiments.report import ArmFacts, BudgetBought, Report
from service.experiments.results import StudentFound
from service.experiments.spec import MatchBy, Split
from service.report import Matched, MetricLine
from service.report_words import MATCHED_WITHIN, difference_text
from service.stats import Estimate, is_significant

RULE = "A difference is called one only when its 95 % interval excludes zero."
NO_DIFFERENCE = "no difference"
MATCH_WORDS = {
    MatchBy.flops: "useful FLOPs",
    MatchBy.flops_paper: "useful FLOPs (paper)",
    MatchBy.usd: "useful USD",
    MatchBy.nominal: "FLOPs at stated lengths",
    MatchBy.nominal_paper: "FLOPs (paper) at stated lengths",
    MatchBy.number: "number of samples",
}


def headline(report: Report) -> str:
    """The answer in one line, as far as it is known."""
    greedy = [found for found in report.found if found.measure == "greedy" and found.difference is not None]
    if greedy:
        real = [found for found in greedy if found.difference is not None and found.difference.is_difference]
        start = f"Students, greedy accuracy on {wording.plural(greedy[0].num_problems, 'test problem')}: "
        if not real:
            return f"{start}none of {wording.plural(len(greedy), 'difference')} to {report.reference} excludes zero."
        most = "; ".join(f"{_place(found)} {signed(found)}" for found in real[:3])
        rest = f"; {len(real) - 3} more" if len(real) > 3 else ""
        return (
            f"{start}{len(real)} of {wording.plural(len(greedy), 'difference')} to {report.reference} "
            f"{'excludes' if len(real) == 1 else 'exclude'} zero: {most}{rest}."
        )
    if report.bought and len(report.bought[-1].data.arms) > 1:
        return data_finding(report, report.bought[-1])[0]
    if report.progress.nodes_done:
        return f"Nothing can be compared yet: {report.progress.nodes_done} of {report.progress.nodes} nodes are done."
    return "Nothing is found yet: the first jobs are being drawn."


def _place(found: StudentFound) -> str:
    return f"{found.student} on {found.arm}'s data at budget {found.num_samples}"


def signed(found: StudentFound) -> str:
    """The difference to the reference with its interval: `+.076 [+.024, +.128]`."""
    assert found.difference is not None, "only what was compared is called a difference"
    estimate = found.difference.estimate
    ends = f"[{wording.signed_share(estimate.low)}, {wording.signed_share(estimate.high)}]"
    return f"{wording.signed_share(estimate.value)} {ends}"


def findings(report: Report) -> list[str]:
    """What was found, one sentence each: data of each budget first, then students."""
    sentences = [sentence for bought in report.bought for sentence in data_finding(report, bought)]
    return sentences + [_student_finding(report, found) for found in report.found if _is_told(found)]


def _is_told(found: StudentFound) -> bool:
    """Greedy and transfer whatever they say, votes only where they differ: a table has the others."""
    if found.difference is None:
        return False
    return found.measure in ("greedy", "transfer") or found.difference.is_difference


def data_finding(report: Report, bought: BudgetBought) -> list[str]:
    """What the budget of each arm gave against the reference's, one sentence an arm."""
    sentences: list[str] = []
    for index, arm in enumerate(bought.data.arms[1:]):
        facts = bought.facts[index + 1]
        lines = [line for line in bought.data.metrics if line.matched is Matched.budget]
        claims = [(line, line.differences[index]) for line in lines if line.key in _TOLD]
        real = [_claim(line, found) for line, found in claims if isinstance(found, Estimate) and is_significant(found)]
        others = [line.label for line, found in claims if not is_significant(found)]
        rest = f"; {NO_DIFFERENCE} in {', '.join(others)}" if others and real else ""
        what = "; ".join(real) if real else f"{NO_DIFFERENCE} in {', '.join(others)}"
        sentences.append(
            f"Data at budget {bought.num_samples}, {_matching(facts, bought)}: {arm.name} against {report.reference}, "
            f"{what}{rest}. {wording.plural(bought.data.num_problems, 'problem').capitalize()}, drawn once."
        )
    return sentences


_TOLD = ("coverage", "verified_coverage", "unique_correct", "false_positive_rate")


def _claim(line: MetricLine, found: Estimate) -> str:
    kind = "relative" if line.is_relative else "absolute"
    return f"{line.label} {difference_text(line, found, with_verdict=False)} {kind}"


def _matching(facts: ArmFacts, bought: BudgetBought) -> str:
    gap = gap_of(facts, bought)
    words = MATCH_WORDS[facts.match or MatchBy.number]
    if facts.match is MatchBy.number:
        return f"at equal {words}"
    if facts.match is not None and facts.match.is_nominal:
        return f"at equal {words} (measured, they differ by {wording.percent(gap, digits=2)})"
    if gap <= MATCHED_WITHIN:
        return f"at equal {words} (within {wording.percent(gap, digits=2)})"
    return f"at {words} that differ by {wording.percent(gap, digits=2)}"


def gap_of(facts: ArmFacts, bought: BudgetBought) -> float:
    """How far an arm's useful FLOPs are from the reference's, relative to them, in what matched it."""
    if facts.match in (MatchBy.flops_paper, MatchBy.nominal_paper):
        value, reference = facts.useful_flops_paper, bought.facts[0].useful_flops_paper
    elif facts.match is MatchBy.usd:
        value, reference = facts.useful_usd, bought.facts[0].useful_usd
    else:
        by_name = {arm.name: arm.useful_flops for arm in bought.data.arms}
        value, reference = by_name[facts.arm], bought.data.arms[0].useful_flops
    return abs(value - reference) / reference if reference else math.inf


def _student_finding(report: Report, found: StudentFound) -> str:
    assert found.difference is not None, "only what was compared is told"
    reference = next(
        other.accuracy.value
        for other in report.found
        if (other.student, other.num_samples, other.measure) == (found.student, found.num_samples, found.measure)
        and other.arm == report.reference
    )
    what = f"{found.measure} accuracy {wording.share(found.accuracy.value)} on {found.arm}'s data"
    against = f"{wording.share(reference)} on {report.reference}'s"
    difference = found.difference
    verdict = f"{signed(found)} absolute" + ("" if difference.is_difference else f", {NO_DIFFERENCE}")
    return (
        f"{found.student} at budget {found.num_samples}: {what}, {against}: {verdict}; "
        f"{wording.plural(found.num_problems, 'problem')}, {wording.plural(len(found.by_seed), 'seed')}."
    )


def limits(report: Report) -> list[str]:
    """What the numbers do not say, one sentence each."""
    sentences: list[str] = []
    if not report.progress.is_complete:
        done = f"{report.progress.nodes_done:,} of {report.progress.nodes:,} nodes are done"
        sentences.append(f"Not complete: {done}, and what is shown covers only these.")
    if report.students:
        sentences.append(_seeds_limit(report))
        sentences.append(_resolution(report))
    sentences.append(
        f"Data was drawn once for each arm and budget, with seed {report.seed}: intervals of the data are over "
        "problems and say nothing of how another draw would come out."
    )
    if report.students:
        rates = wording.plural(len(report.learning_rates), "learning rate")
        sentences.append(
            f"Every run takes {report.training.steps:,} steps of {report.training.batch_size} examples"
            f"{', in all its rounds together' if report.rounds_of else ''}, so that training compute matches; a "
            "smaller training set repeats more. The best of "
            f"{wording.plural(report.training.num_checkpoints, 'checkpoint')} and {rates} was picked on "
            f"{wording.plural(report.num_problems(Split.validation), 'validation problem')}, for each run alone."
        )
    if report.rounds_of:
        arms = ", ".join(f"{arm} ({number} rounds)" for arm, number in report.rounds_of.items())
        sentences.append(
            f"Rounds share budget and steps: {arms}. The first round's data is drawn once for all students, each later "
            "one by each run's own checkpoint."
        )
    sentences += _judging_limits(report)
    if report.judge is not None:
        sentences.append(
            f"Budgets are matched without the judge: what {report.judge} took to judge samples is in no arm's budget, "
            "and the data tables show it beside them."
        )
    if report.adaptive_arms:
        sentences.append(
            f"Results decided how {', '.join(report.adaptive_arms)} was sampled: its coverage is what it realised, "
            "and no curve over the number of samples can be drawn without bias."
        )
    if report.ngram is None:
        sentences.append("Training sets were compared with the held-out problems by whole texts only.")
    for bought in report.bought:
        sentences += [note for note in bought.data.notes if note not in sentences and "decided how" not in note]
    return sentences


def _seeds_limit(report: Report) -> str:
    if len(report.seeds) == 1:
        return (
            "One seed of training: intervals of students are over problems alone and say nothing of how another seed "
            "would come out."
        )
    return (
        f"{len(report.seeds)} seeds of training: intervals of students are over problems and seeds; with few seeds "
        "their spread is known roughly."
    )


def _resolution(report: Report) -> str:
    num_problems = report.num_problems(Split.test)
    half = 1.96 * math.sqrt(0.25 / num_problems) if num_problems else math.inf
    compared = [found for found in report.found if found.difference is not None]
    chance = ""
    if len(compared) > 1:
        chance = (
            f" {len(compared)} differences of students are shown: of intervals that hold 95 % of the time, about one "
            "in twenty excludes zero by chance."
        )
    return (
        f"With {wording.plural(num_problems, 'test problem')} one accuracy near one half is known to about "
        f"{100 * half:.1f} points either way; differences are paired by problem and known better.{chance}"
    )


def _judging_limits(report: Report) -> list[str]:
    if report.checker is None:
        return ["No step check: false positives and verified coverage are not measured."]
    return [
        f"Reasoning was judged by {report.checker}; in verified coverage what it could not judge counts as wrong, and "
        "false positive rates are among right answers that it could judge."
    ]
