"""Training pages filled with made-up numbers: sets and students in every state, one set in full, a running student."""

import math
from datetime import timedelta

from api.dashboard import pages
from service import figures
from tests.api.dashboard.example_figures import COLOURS, MODELS, NOW, shell

SELECTION_ID, FINETUNE_ID = "select-7-98214f", "finetune-8-0f92a3"
FILTERS = (
    ("samples", "every sample of the sources", (4000, 12_000)),
    ("completions", "rows that stand for an error have none", (4000, 11_988)),
    ("keep", "right answer, every calculation valid, not cut short", (2804, 6120)),
    ("duplicates", "the same calculations once a problem", (1302, 3455)),
    ("decontaminate", "whole questions and 13 words in a row of gsm-mini/test", (1296, 3440)),
    ("problems", "all", (1296, 3440)),
    ("per_problem", "at most 4", (980, 1620)),
    ("shares", "mixed 0.5 : 0.5", (980, 980)),
    ("rows", "no limit", (980, 980)),
)
SETTINGS = (("method", "full"), ("steps", "200"), ("batch_size", "32"), ("learning_rate", "0.0006"))
ROWS = (
    ("train-0136", "verified", "good", "7*5=35. 39-35=4. #### 4"),
    ("train-0146", "correct", "good", "12+30=42. #### 42"),
    ("train-0176", "false positive", "warning", "46-16=31. 31-1=30. #### 30"),
)


def selection_line(
    *,
    selection_id: str = SELECTION_ID,
    name: str = "verified, four a problem",
    phase: str = "succeeded",
    rows: int | None = 1960,
    error: str | None = None,
) -> pages.SelectionLine:
    """One training set; the defaults are one that is made."""
    return pages.SelectionLine(
        id=selection_id,
        name=name,
        phase=phase,
        error=error,
        sources=(
            pages.Link(name="gsm-mini large, 10 samples", path="/jobs/job-5d20e1"),
            pages.Link(name="gsm-mini small, 30 samples worth", path="/jobs/job-7f3a9c"),
        ),
        rows=rows,
        considered=None if rows is None else 16_000,
        created_at=NOW - timedelta(minutes=9),
    )


def finetune_line(
    *,
    finetune_id: str = FINETUNE_ID,
    name: str = "self-improvement/small@10/seed-0",
    phase: str = "running",
    steps_done: int = 80,
    error: str | None = None,
) -> pages.FinetuneLine:
    """One student; the defaults are a running one."""
    return pages.FinetuneLine(
        id=finetune_id,
        name=name,
        phase=phase,
        error=error,
        base=MODELS[1],
        colour=COLOURS[MODELS[1]],
        dataset=pages.Link(name="verified, four a problem", path=f"/training/selections/{SELECTION_ID}"),
        steps=200,
        steps_done=steps_done,
        loss=0.3127 if steps_done else None,
        flops=2.1e9 * steps_done,
        num_checkpoints=steps_done // 50,
        created_at=NOW - timedelta(minutes=8),
    )


def training_page() -> pages.TrainingPage:
    """Sets and students in every state."""
    selections = (
        selection_line(),
        selection_line(selection_id="select-12-aa01bc", name="majority", phase="queued", rows=None),
        selection_line(
            selection_id="select-5-b0c1d2",
            name="verified of a weak model",
            phase="failed",
            rows=None,
            error="`keep` leaves no row; rows after each filter: samples 400, completions 400, keep 0",
        ),
    )
    finetunes = (
        finetune_line(),
        finetune_line(finetune_id="finetune-9-c3d4e5", phase="succeeded", steps_done=200),
        finetune_line(finetune_id="finetune-13-e5f6a7", phase="queued", steps_done=0),
    )
    return pages.TrainingPage(
        shell=shell("training"),
        headline=pages.training_headline(selections, finetunes, limit=50),
        selections=selections,
        finetunes=finetunes,
        limit=50,
        poll_s=2.0,
    )


def empty_training_page() -> pages.TrainingPage:
    """Before the first set."""
    return pages.TrainingPage(
        shell=shell("training"),
        headline=pages.training_headline((), (), limit=50),
        selections=(),
        finetunes=(),
        limit=50,
        poll_s=None,
    )


def row_line(number: int) -> pages.RowLine:
    problem_id, label, tone, completion = ROWS[number]
    return pages.RowLine(
        number=number,
        problem_id=problem_id,
        model=MODELS[1],
        label=label,
        tone=tone,
        completion_tokens=len(completion),
    )


def made_set(row: int = 0) -> pages.MadeSet:
    """A set of two jobs, judged."""
    totals = [sum(counts) for _, _, counts in FILTERS]
    return pages.MadeSet(
        facts=(
            ("rows", "1,960", "of 16,000 samples"),
            ("problems", "731", "2.68 rows each"),
            ("completion tokens", "53,110", "27.1 a row"),
            ("right answer", "1,960", "100.0 %"),
            ("and valid steps", "1,960", "as far as the step check could tell"),
        ),
        filters=tuple(
            pages.FilterLine(
                name=name.replace("_", " "),
                setting=setting,
                rows=total,
                dropped=before - total,
                share=total / totals[0],
                rows_by_source=counts,
            )
            for (name, setting, counts), total, before in zip(FILTERS, totals, [totals[0], *totals[:-1]], strict=True)
        ),
        origins=tuple(
            pages.OriginLine(
                job=job,
                problems="gsm-mini/train, 2,000 problems",
                models=(f"{model} (license apache-2.0)",),
                samples=samples,
                rows=980,
                flops=1.31e12,
            )
            for job, model, samples in zip(selection_line().sources, MODELS, (4000, 12_000), strict=True)
        ),
        judged=(
            ("yes", "1,960", ""),
            ("no", "214", ""),
            ("undecided", "12", ""),
            ("false positives as judged, of right answers", "9.8 % [8.7, 11.2]", "n 2,174"),
            ("false positives corrected for the judge's errors", "not measured", "the test says no more than chance"),
        ),
        judges=(pages.Link(name="large judges the right answers", path="/jobs/job-30-aa11bb"),),
        held_out="Held out: gsm-mini/test (250 questions). Of 1,204 questions compared, none occurs there.",
        rows=tuple(row_line(number) for number in range(len(ROWS))),
        selected=pages.RowDetail(
            line=row_line(row),
            prompt="Ann starts with 39 apples. She gives 5 apples to each of 7 friends. How many has she now?\n",
            completion=ROWS[row][3],
            job=selection_line().sources[1],
            sample_path="/jobs/job-7f3a9c/samples?sample=s02",
            sample_id="06e89c49a32302f50efb9b67d452bb8a",
        ),
        num_rows=1960,
        path=f"data/jobs/{SELECTION_ID}/attempts/{SELECTION_ID}-0.1/part-00000.parquet",
        sha256="9c0e4d1f22ab7d10" * 4,
    )


def selection_page(row: int = 0, *, is_made: bool = True) -> pages.SelectionPage:
    """One training set, made or not yet."""
    line = selection_line() if is_made else selection_line(phase="running", rows=None)
    bars = [figures.FilterBar(name=name, rows=sum(counts), rows_by_source=counts) for name, _, counts in FILTERS]
    return pages.SelectionPage(
        shell=shell("training"),
        selection=line,
        headline=pages.selection_headline(line),
        error=None,
        actions=() if is_made else ("cancel",),
        made=made_set(row) if is_made else None,
        figures=(figures.filters_figure(bars, ["job-5d20e1", "job-7f3a9c"]),) if is_made else (),
        students=(pages.Link(name=finetune_line().name, path=f"/training/finetunes/{FINETUNE_ID}", note="running"),),
        events=(_event(1, 540, "active", "submitted: verified, four a problem"),),
        document="keep: verified\nper_problem: 4\n",
        took_s=1.2 if is_made else None,
        poll_s=None if is_made else 2.0,
    )


def training_points(steps: int = 80) -> list[figures.LossPoint]:
    """A log that falls and scatters."""
    return [
        figures.LossPoint(
            step=step,
            loss=0.25 + 0.5 * math.exp(-step / 30) + 0.03 * math.sin(step * 12.9898),
            learning_rate=6e-4 * min(1.0, step / 10) * (1 - step / 200),
            epoch=step * 32 / 1960,
        )
        for step in range(1, steps + 1)
    ]


def finetune_page() -> pages.FinetunePage:
    """A student after 80 of 200 steps."""
    line = finetune_line()
    points = training_points()
    job = pages.Link(name="validate step 50", path="/jobs/job-14-3a8842", note="succeeded")
    return pages.FinetunePage(
        shell=shell("training"),
        run=line,
        headline=pages.finetune_headline(line, 41.0),
        error=None,
        actions=("pause", "cancel"),
        facts=(
            ("loss", "loss", "0.3127", "nats a completion token"),
            ("flops", "training FLOPs", "1.68e11", "exact; 1.59e11 paper"),
            ("tokens", "tokens trained", "140,212", "without padding"),
            ("passes", "passes over the data", "1.31", ""),
            ("time", "time left", "41 s", "27.4 s of training"),
        ),
        figures=(
            figures.loss_figure(points, colour=COLOURS[MODELS[1]], checkpoints=[50]),
            figures.learning_rate_figure(points, colour=COLOURS[MODELS[1]]),
        ),
        checkpoints=(
            pages.CheckpointLine(
                model=f"{FINETUNE_ID}/step-50",
                step=50,
                loss=0.4012,
                jobs=(job,),
                path=f"data/jobs/{FINETUNE_ID}/attempts/{FINETUNE_ID}-0.1/checkpoint-50",
            ),
        ),
        settings=SETTINGS,
        events=(
            _event(2, 30, "good", f"checkpoint: {FINETUNE_ID}/step-50: loss 0.4012"),
            _event(1, 480, "active", "submitted: self-improvement/small@10/seed-0"),
        ),
        document="base: gsm-mini-small\n",
        poll_s=2.0,
    )


def _event(seq: int, seconds_ago: float, tone: str, text: str) -> pages.EventLine:
    return pages.EventLine(seq=seq, at=NOW - timedelta(seconds=seconds_ago), tone=tone, text=text)
