"""The table of what one budget bought: how arms were matched, what they spent and drew, what a judge said of it.

Computes no statistics; a number without its basis is not written.
"""

import math
from collections.abc import Sequence

from service import wording
from service.experiments.report import BudgetBought
from service.experiments.report_words import MATCH_WORDS, gap_of
from service.experiments.spec import MatchBy
from service.report import Form
from service.report_words import Row, comparison_rows, measured_text


def data_rows(bought: BudgetBought) -> list[Row]:
    """What a budget bought: how arms were matched, what they spent, what it gave."""
    facts = bought.facts
    blank = tuple("" for _ in facts[1:])

    def row(label: str, basis: str, cells: Sequence[str], explanation: str, differences: Sequence[str] = blank) -> Row:
        return Row(
            label=label, basis=basis, values=tuple(cells), differences=tuple(differences), explanation=explanation
        )

    first = [
        row(
            "equal by",
            "",
            ["reference" if fact.match is None else MATCH_WORDS[fact.match] for fact in facts],
            "What gives an arm its budget.",
        ),
        row(
            "samples a problem, planned",
            "estimate",
            [wording.UNKNOWN if f.planned_samples is None else f"{f.planned_samples:.2f}" for f in facts],
            "Before anything ran: by the stated lengths where they match, else by the ratio of parameters, lengths "
            "taken as equal and prompts as free.",
        ),
        row(
            "samples a problem",
            "absolute, actual",
            [f"{fact.samples:.2f}" for fact in facts],
            "What was drawn, over all problems.",
            [f"× {fact.samples / facts[0].samples:.2f}" if facts[0].samples else "" for fact in facts[1:]],
        ),
        row(
            "budget used",
            "relative to what was granted",
            [wording.percent(f.spent / f.granted, digits=2) if f.granted else wording.UNKNOWN for f in facts],
            "Of the limit, which no arm may exceed.",
        ),
    ]
    if any(fact.match in (MatchBy.flops_paper, MatchBy.nominal_paper) for fact in facts):
        gaps = [f"{gap_of(fact, bought):.2%}".replace("%", " %") for fact in facts[1:]]
        first.append(
            row(
                "useful FLOPs (paper)",
                "absolute, paper",
                [wording.flops(fact.useful_flops_paper) for fact in facts],
                "2 x parameters x completion tokens of samples that ended by themselves.",
                [f"differs by {gap}" for gap in gaps],
            )
        )
    if not any(math.isnan(fact.useful_usd) for fact in facts):
        matched = [fact.match is MatchBy.usd for fact in facts]
        first.append(
            row(
                "useful USD",
                "absolute",
                [wording.usd(fact.useful_usd) for fact in facts],
                "Price of prompt and completion tokens of samples that ended by themselves.",
                [
                    f"differs by {wording.percent(gap_of(fact, bought), digits=2)}" if is_matched else ""
                    for fact, is_matched in zip(facts[1:], matched[1:], strict=True)
                ],
            )
        )
    last = [
        *_judge_rows(bought),
        row(
            "training rows",
            "absolute",
            [wording.UNKNOWN if fact.rows is None else wording.count(fact.rows) for fact in facts],
            "Of the training set, after selection.",
        ),
        row(
            "repeats in training",
            "absolute",
            [wording.UNKNOWN if fact.repeats is None else f"{fact.repeats:.2f}" for fact in facts],
            "How often a run of a fixed number of steps sees each row.",
        ),
    ]
    return [*first, *(r for r in comparison_rows(bought.data) if r.label != "FLOPs reserved"), *last]


def _judge_rows(bought: BudgetBought) -> list[Row]:
    """What the judge cost and how far it can be trusted; none where no arm asks one."""
    facts = bought.facts
    if not any(fact.judge_flops for fact in facts):
        return []
    by_name = {arm.name: arm.useful_flops for arm in bought.data.arms}
    blank = tuple("" for _ in facts[1:])
    shares = [fact.judge_flops / by_name[fact.arm] if by_name[fact.arm] else 0.0 for fact in facts]
    costs = [
        f"{wording.flops(fact.judge_flops)}, + {wording.percent(share)}" if fact.judge_flops else "none"
        for fact, share in zip(facts, shares, strict=True)
    ]
    rows = [
        Row(
            label="FLOPs of judging",
            basis="absolute, exact; not in the budget",
            values=tuple(costs),
            differences=blank,
            explanation="Useful FLOPs of having the samples judged, and relative to those of drawing them.",
        )
    ]
    judged = [None if fact.judged is None else fact.judged.in_words() for fact in facts]
    labels = next((words for words in judged if words is not None), ())
    for index, (label, _) in enumerate(labels):
        cells = ["" if words is None else measured_text(Form.rate, words[index][1]) for words in judged]
        rows.append(
            Row(
                label=label,
                basis="absolute",
                values=tuple(cells),
                differences=blank,
                explanation="The judge held against the step check, which sees arithmetic alone.",
            )
        )
    return rows
