"""Reads what the report of a comparison is made of, and keeps it: what has ended never changes.

Invariant: a report is made anew only when another node has ended, and the samples of a budget's jobs are read once.
Columns only, so that a comparison of jobs with 10^6 samples stays small. Thread-safe.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from service.artifacts import Artifact
from service.checkpoints import read_document
from service.currency import Currency, stated, stated_amount
from service.experiments.graph import cell, count_nodes
from service.experiments.nodes import Child
from service.experiments.report import (
    ArmFacts,
    BudgetBought,
    LossCurve,
    ModelUsed,
    Progress,
    Report,
    Stage,
    StageCost,
    planned_samples,
    repeats,
    sets_used,
    teachers,
)
from service.experiments.results import ArmFound, collect_results
from service.experiments.spec import ArmSpec, ComparisonSpec, ComparisonWork
from service.figures import Figure
from service.job_report import report_jobs
from service.measures import Measures
from service.report import Comparison
from service.selection.judge_quality import Judged
from service.selection.lineage import read_lineage
from service.store import Store
from service.work import TaskKind

MAX_LOSS_POINTS = 150
CAPACITY = 16

Log = Callable[[str], list[dict[str, float]]]
"""The training log of a finetune so far, by its id."""
_Value = TypeVar("_Value")
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a report takes from the service around it.

    Args:
        document: the comparison as YAML.
        job_document: a job's document as YAML, by its id.
        log: see `Log`.
        manifest: path of a job's last manifest, by its id.
        versions: of this service.
    """

    document: str
    job_document: Callable[[str], str]
    log: Log
    manifest: Callable[[str], str]
    versions: tuple[tuple[str, str], ...]


class _Kept(dict[_Key, _Value]):
    """The latest few of something."""

    def keep(self, key: _Key, value: _Value) -> _Value:
        """Stores a value, in place of the oldest."""
        while len(self) >= CAPACITY:
            del self[next(iter(self))]
        self[key] = value
        return value


class Reports:
    """Reports of comparisons, made when asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: _Kept[Report] = _Kept()
        self._data: _Kept[tuple[Comparison, tuple[Figure, ...]]] = _Kept()

    def get(
        self, store: Store, artifact: Artifact, around: Surroundings, now: datetime
    ) -> tuple[Report, tuple[Figure, ...]]:
        """The report of what has ended so far, and figures of what the largest budget bought.

        Raises:
            CorruptFile: a committed file is missing or unreadable.
        """
        spec, children = artifact.spec, store.reads.children(artifact.id)
        assert isinstance(spec, ComparisonSpec)
        ended = sorted(child.id for child in children.values() if child.phase.is_terminal)
        key = (artifact.id, artifact.phase.value, *ended)
        with self._lock:  # one at a time: two readers of a large comparison would hold its samples twice
            report = self._reports.get(key)
            if report is None:
                report = self._reports.keep(key, self._report(store, artifact, children, around, now))
            figures = self._figures_of(store, spec, report, around, now)
        return report, figures

    def _figures_of(
        self, store: Store, spec: ComparisonSpec, report: Report, around: Surroundings, now: datetime
    ) -> tuple[Figure, ...]:
        if not report.bought:
            return ()
        largest = max(report.bought, key=lambda bought: bought.num_samples)
        names = [arm.name for arm in largest.data.arms]
        return self._compared(store, spec, [arm.job_id for arm in largest.data.arms], names, around, now)[1]

    def _compared(
        self,
        store: Store,
        spec: ComparisonSpec,
        job_ids: Sequence[str],
        names: Sequence[str],
        around: Surroundings,
        now: datetime,
    ) -> tuple[Comparison, tuple[Figure, ...]]:
        key = (*job_ids, *names)
        known = self._data.get(key)
        if known is not None:
            return known
        documents = {job_id: around.job_document(job_id) for job_id in job_ids}
        made = report_jobs(
            store,
            job_ids,
            title=spec.name,
            documents=documents,
            versions=around.versions,
            now=now,
            names=names,
        )
        return self._data.keep(key, made)

    def _report(
        self, store: Store, artifact: Artifact, children: Mapping[str, Child], around: Surroundings, now: datetime
    ) -> Report:
        spec, work = artifact.spec, artifact.work
        assert isinstance(spec, ComparisonSpec)
        assert isinstance(work, ComparisonWork)
        results = collect_results(store, artifact.id, spec)
        bought = [
            made
            for num_samples in spec.budgets
            if (made := self._bought(store, spec, work, results.arms, num_samples, around, now)) is not None
        ]
        has_steps = Measures.of(spec.scorers).has_steps
        done = sum(child.is_done for child in children.values())
        return Report(
            id=artifact.id,
            title=spec.name,
            created_at=now,
            progress=Progress(phase=artifact.phase.value, nodes=count_nodes(spec), nodes_done=done),
            match=spec.match,
            reference=spec.reference,
            arms=tuple(arm.name for arm in spec.arms),
            students=tuple((student.name, student.base) for student in spec.students),
            budgets=spec.budgets,
            seeds=spec.seeds,
            seed=spec.seed,
            learning_rates=spec.learning_rates,
            training=spec.training,
            accounting="exact",
            checker="the steps scorer" if has_steps else None,
            judge=None if spec.judge is None else spec.judge.model,
            ngram=spec.selection.ngram,
            adaptive_arms=tuple(arm.name for arm in spec.arms if arm.rounds == 1 and not arm.allocation.is_even),
            rounds_of={arm.name: arm.rounds for arm in spec.arms if arm.rounds > 1},
            teachers=teachers(spec, work),
            sets=sets_used(spec, work),
            models=tuple(
                ModelUsed(name=model.name, parameters=model.cost.parameters, revision=model.revision)
                for model in work.models
            ),
            bought=tuple(bought),
            found=results.students,
            rounds=results.rounds,
            costs=stage_costs(store, children),
            losses=loss_curves(spec, children, around.log),
            document=around.document,
            versions=_versions(store, children, around),
        )

    def _bought(
        self,
        store: Store,
        spec: ComparisonSpec,
        work: ComparisonWork,
        arms: Sequence[ArmFound],
        num_samples: int,
        around: Surroundings,
        now: datetime,
    ) -> BudgetBought | None:
        # a round's share of a budget is not what the budget bought
        once = {arm.name for arm in spec.arms if arm.rounds == 1}
        found = {arm.arm: arm for arm in arms if arm.num_samples == num_samples and arm.arm in once}
        if spec.reference not in found:
            return None
        ordered = sorted(found.values(), key=lambda arm: arm.arm != spec.reference)
        ids, names = [arm.job_id for arm in ordered], [arm.arm for arm in ordered]
        data, _ = self._compared(store, spec, ids, names, around, now)
        by_name = {arm.name: arm for arm in spec.arms}
        facts = tuple(_facts(store, spec, work, by_name[arm.arm], arm, data.num_problems) for arm in ordered)
        return BudgetBought(num_samples=num_samples, data=data, facts=facts)


def _facts(
    store: Store, spec: ComparisonSpec, work: ComparisonWork, arm: ArmSpec, found: ArmFound, num_problems: int
) -> ArmFacts:
    account = store.reads.account(found.job_id)
    usage = store.reads.usage(job_id=found.job_id)
    return ArmFacts(
        arm=arm.name,
        match=None if arm.name == spec.reference else arm.match or spec.match,
        planned_samples=planned_samples(spec, work, arm, found.num_samples),
        samples=found.samples / num_problems,
        granted=stated_amount(account.currency, account.limit or 0),
        spent=stated_amount(account.currency, account.used),
        currency=account.currency.value,
        useful_usd=stated(Currency.usd, sum(row.nano_usd for row in usage if row.outcome == "useful")),
        useful_flops_paper=sum(row.flops_paper for row in usage if row.outcome == "useful"),
        rows=found.rows,
        repeats=repeats(spec.training, found.rows),
        judge_flops=found.judge_flops,
        judged=_judged(found),
    )


def _judged(found: ArmFound) -> Judged | None:
    return None if found.dataset is None else read_lineage(found.dataset).judged


def stage_costs(store: Store, children: Mapping[str, Child]) -> tuple[StageCost, ...]:
    """What each stage used, by arm where a node belongs to one."""
    ids_by_cell: dict[tuple[Stage, str], dict[str, int]] = {}
    counted: set[str] = set()
    for key, child in children.items():
        place = ids_by_cell.setdefault(_place(key), {})
        place[child.id] = 1 if child.id not in counted else 0
        counted.add(child.id)
    rows = store.reads.usage(job_ids=sorted(counted)) if counted else []
    costs: list[StageCost] = []
    for (stage, arm), ids in sorted(ids_by_cell.items(), key=lambda item: (list(Stage).index(item[0][0]), item[0][1])):
        mine = [row for row in rows if ids.get(row.job_id)]
        costs.append(
            StageCost(
                stage=stage,
                arm=arm,
                num_nodes=len(ids),
                samples=sum(row.samples for row in mine),
                flops=sum(row.flops for row in mine),
                wasted_flops=sum(row.flops for row in mine if row.outcome != "useful"),
                flops_paper=sum(row.flops_paper for row in mine),
                gpu_s=sum(row.gpu_s for row in mine),
                cpu_s=sum(row.cpu_s for row in mine),
            )
        )
    return tuple(costs)


def _place(key: str) -> tuple[Stage, str]:
    """Stage and arm of a node, from its key: `train/<student>/<arm>@<n>/...`; no arm of a base model."""
    parts = key.split("/")
    cells = [part.partition("@")[0] for part in parts if "@" in part]  # names of models and students have no @
    return Stage(parts[0]), cells[0] if cells else ""


def loss_curves(spec: ComparisonSpec, children: Mapping[str, Child], log: Log) -> tuple[LossCurve, ...]:
    """Training logs of the runs that have ended."""
    curves: list[LossCurve] = []
    for student in spec.students:
        for num_samples in spec.budgets:
            for arm in spec.arms:
                start = f"train/{student.name}/{cell(arm.name, num_samples)}/"
                # round-10 comes after round-9
                for key in sorted((key for key in children if key.startswith(start)), key=lambda key: (len(key), key)):
                    if not children[key].is_done:
                        continue
                    entries = log(children[key].id)
                    step = -(-len(entries) // MAX_LOSS_POINTS) or 1
                    points = tuple((int(entry["step"]), float(entry["loss"])) for entry in entries[step - 1 :: step])
                    run = key.removeprefix(start)
                    curves.append(
                        LossCurve(
                            run=run,
                            student=student.name,
                            arm=arm.name,
                            model=arm.models[0],
                            num_samples=num_samples,
                            points=points,
                        )
                    )
    return tuple(curves)


def _versions(store: Store, children: Mapping[str, Child], around: Surroundings) -> tuple[tuple[str, str], ...]:
    """Packages that drew and trained, by what their files say; this service's where they say nothing."""
    found: dict[str, list[str]] = {}

    def add(versions: Mapping[str, Any]) -> None:
        for name, version in versions.items():
            if version not in found.setdefault(name, []):
                found[name].append(str(version))

    for key, child in children.items():
        if not child.is_done:
            continue
        if key.startswith("draw/"):
            add(_manifest_versions(Path(around.manifest(child.id))))
        elif key.startswith("train/"):
            parts = store.reads.parts(child.id, TaskKind.finetune)
            if parts:
                add(read_document(Path(parts[-1].path).parent).get("versions", {}))
    add({name: version for name, version in around.versions if name not in found})
    return tuple((name, " and ".join(versions)) for name, versions in found.items())


def _manifest_versions(path: Path) -> Mapping[str, Any]:
    try:
        return json.loads(path.read_text()).get("versions", {})
    except (OSError, ValueError):
        return {}  # the files are there without it; `isoflop verify` says what is missing
