"""From what an arm has drawn to its training set, by way of a judge where the arm keeps what is judged right.

    draw/<data> -> select/<data>
    draw/<data> -> ask/<data> -> judge/<data> -> select/<data>

Pure. Two arms that draw the same samples ask about them and have them judged once.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from service.currency import Budget, Currency
from service.experiments.nodes import Child, Node, resolved, select_node
from service.experiments.spec import ArmSpec, ComparisonSpec, ComparisonWork, JudgeSpec, ResolvedSet, Split
from service.jobs import JobSpec
from service.selection.judging import JUDGE_SCORER, QUESTIONS_FILE
from service.selection.spec import Keep, SelectionSource, SelectionSpec
from service.work import SelectSource, SelectWork


def selection_nodes(
    spec: ComparisonSpec,
    work: ComparisonWork,
    children: Mapping[str, Child],
    arm: ArmSpec,
    data: str,
    manifest: Callable[[str], str],
) -> Iterator[Node]:
    """What is possible between an arm's draw and its training set.

    Args:
        data: what the keys are called after their kind.
        manifest: where the last manifest of a job lies, by its id.
    """
    drawn = children.get(f"draw/{data}")
    if drawn is None or not drawn.is_done:
        return
    judges: tuple[SelectSource, ...] = ()
    if spec.keep_of(arm) is Keep.judged:
        assert spec.judge is not None, "checked when the document is resolved"
        yield _ask_node(spec, work, spec.judge, f"ask/{data}", drawn, manifest(drawn.id))
        asked = children.get(f"ask/{data}")
        if asked is None or asked.dataset is None:
            return
        judging = _judge_node(spec, work, spec.judge, f"judge/{data}", asked)
        yield judging
        judged = children.get(judging.key)
        if judged is None or not judged.is_done:
            return
        questions = _questions(asked).path
        judges = (SelectSource(job_id=judged.id, manifest_path=manifest(judged.id), problems_path=questions),)
    path = manifest(drawn.id)
    yield select_node(spec, work, f"select/{data}", arm, drawn=drawn, manifest_path=path, judges=judges)


def question_set(selection_id: str, *, path: str, sha256: str, num_rows: int) -> ResolvedSet:
    """The rows of a selection that asks as a problem set.

    Args:
        path: its training set.
        sha256: of that file.
    """
    return ResolvedSet(
        name=selection_id,
        path=str(Path(path).with_name(QUESTIONS_FILE)),
        num_problems=num_rows,
        # the questions follow from the rows and the template, and the rows' file holds both
        fingerprint=f"sha256:{sha256}",
    )


def _ask_node(
    spec: ComparisonSpec, work: ComparisonWork, judge: JudgeSpec, key: str, drawn: Child, manifest_path: str
) -> Node:
    """The samples that a judge is asked about, as questions; held-out problems are left out later, with their rows."""
    selection = SelectionSpec(
        name=f"questions about {drawn.id}",
        sources=(SelectionSource(job=drawn.id),),
        keep=judge.keep,
        duplicates=spec.selection.duplicates,
        seed=spec.seed,
        ask=judge.template,
    )
    source = SelectSource(job_id=drawn.id, manifest_path=manifest_path, problems_path=work.sets[Split.train].path)
    return Node(key=key, spec=selection, work=SelectWork(spec=selection, sources=(source,), held_out=()))


def _judge_node(spec: ComparisonSpec, work: ComparisonWork, judge: JudgeSpec, key: str, asked: Child) -> Node:
    model, problems = work.model(judge.model), _questions(asked)
    job = JobSpec(
        name=f"{judge.model} judges {asked.id}"[:200],
        problems=problems.name,
        models=(judge.model,),
        budget=Budget(currency=Currency.samples, limit=judge.votes * problems.num_problems),
        prompt=judge.prompt,
        sampling=judge.sampling,
        scorers=(JUDGE_SCORER,),
        seed=spec.seed,
        stage="judge",
    )
    return Node(key=key, spec=job, work=resolved(problems, (model,), problems.num_problems))


def _questions(asked: Child) -> ResolvedSet:
    assert asked.dataset is not None, "asked once it is made"
    path, sha256 = asked.dataset
    return question_set(asked.id, path=path, sha256=sha256, num_rows=asked.num_rows)
