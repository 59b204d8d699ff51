"""Comparisons and evaluations: submits the nodes of their graphs as they become due, and ends them.

Consumes the states of their children; produces submissions, and what is wanted of the children. Level
triggered as everything here: which nodes are missing follows from those that are there, and what is wanted of the
children from what is wanted of the comparison. One thing is passed on once only, when a comparison is resumed: that its
children go on. So a child that people pause under a comparison that runs stays paused, and the comparison waits for it.
"""

from service.errors import InvalidInput
from service.experiments.graph import due_nodes, due_of_evaluation
from service.experiments.nodes import Child, Node
from service.experiments.spec import ComparisonSpec, ComparisonWork, EvaluationSpec, EvaluationWork
from service.jobs import Desired, Phase
from service.planner.draft import Draft
from service.planner.failing import fail_artifact
from service.planner.plan import ArtifactView, Due
from service.planner.submit import manifest_path

MAX_ACTIVE_CHILDREN = 12
"""Children of a comparison at a time: enough that no engine or trainer waits for the next, few enough that a tick,
which looks at every active job, stays cheap."""


def advance_comparison(draft: Draft, artifact: ArtifactView) -> None:
    """Submits what is due, passes on a pause or the end, and derives the phase."""
    had_failed = artifact.error is not None
    undone = {key: child for key, child in artifact.children.items() if not child.is_done}
    active = [child for child in undone.values() if not child.phase.is_terminal]
    if not artifact.is_ending and len(active) < len(undone):
        key, child = next((key, child) for key, child in undone.items() if child.phase.is_terminal)
        fail_artifact(draft, artifact.id, f"{key}: {child.id} {child.phase}")
        artifact = draft.artifacts[artifact.id]
    if artifact.is_ending:
        _end(draft, artifact, active, has_just_failed=not had_failed and artifact.error is not None)
    elif artifact.desired is Desired.pause:
        _pass_on(draft, artifact, active, Desired.pause)
        draft.change_artifact(artifact.id, phase=Phase.paused)
    elif not draft.seen.is_draining:
        _go_on(draft, artifact, active)


def _end(draft: Draft, artifact: ArtifactView, active: list[Child], *, has_just_failed: bool) -> None:
    has_own = _pass_on(draft, artifact, active, Desired.cancel)
    # others learn of a failure with the next tick, and only then no longer count as needing what is shared
    is_ending = has_own or has_just_failed
    ended = Phase.cancelled if artifact.error is None else Phase.failed
    draft.change_artifact(artifact.id, phase=Phase.cancelling if is_ending else ended)


def _pass_on(draft: Draft, artifact: ArtifactView, active: list[Child], wanted: Desired) -> bool:
    """Has the children that go on for this comparison alone pause or end; whether there are any."""
    own = [child for child in active if not child.is_shared]
    if any(child.desired not in (wanted, Desired.cancel) for child in own):
        draft.want_of_children(artifact.id, wanted)
    return bool(own)


def _go_on(draft: Draft, artifact: ArtifactView, active: list[Child]) -> None:
    # the phase is as of the last tick: it was paused and is not any more
    if artifact.phase is Phase.paused and any(child.desired is Desired.pause for child in active):
        draft.want_of_children(artifact.id, Desired.run)
    try:
        due = _due(draft, artifact, num_done=len(artifact.children) - len(active))
    except InvalidInput as error:  # what its children came to leaves an arm without a budget
        fail_artifact(draft, artifact.id, str(error))
        return _end(draft, draft.artifacts[artifact.id], active, has_just_failed=True)
    for node in due[: max(0, MAX_ACTIVE_CHILDREN - len(active))]:
        draft.submit_node(artifact.id, node)
    draft.change_artifact(artifact.id, phase=Phase.running if due or active else Phase.succeeded)


def _due(draft: Draft, artifact: ArtifactView, *, num_done: int) -> tuple[Node, ...]:
    """What is due and not submitted. The graph is gone through only when a child has ended: nothing else adds to it."""
    known = draft.seen.due.get(artifact.id)
    nodes = _build(draft, artifact) if known is None or known.num_done != num_done else known.nodes
    due = Due(num_done=num_done, nodes=tuple(node for node in nodes if node.key not in artifact.children))
    draft.due[artifact.id] = due
    return due.nodes


def _build(draft: Draft, artifact: ArtifactView) -> list[Node]:
    spec, work = artifact.spec, artifact.work
    if isinstance(spec, EvaluationSpec):
        assert isinstance(work, EvaluationWork)
        return due_of_evaluation(spec, work, artifact.children)
    assert isinstance(spec, ComparisonSpec)
    assert isinstance(work, ComparisonWork)
    return due_nodes(spec, work, artifact.children, lambda job_id: manifest_path(draft.options.data_dir, job_id))
