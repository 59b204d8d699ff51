"""Comparisons and evaluations: submits the nodes of their graphs as they become due, and ends them.

Consumes the states of their children; produces submissions, and what is wanted of the children. Level
triggered as everything here: which nodes are missing follows from those that are there.
"""

from service.experiments.graph import Node, due_nodes, due_of_evaluation
from service.experiments.spec import ComparisonSpec, ComparisonWork, EvaluationSpec, EvaluationWork
from service.jobs import Desired, Phase
from service.planner.draft import Draft
from service.planner.plan import ArtifactView
from service.planner.submit import manifest_path

MAX_ACTIVE_CHILDREN = 12
"""Children of a comparison at a time: enough that no engine or trainer waits for the next, few enough that a tick,
which looks at every active job, stays cheap."""


def advance_comparison(draft: Draft, artifact: ArtifactView) -> None:
    """Submits what is due, passes on a pause or the end, and derives the phase."""
    active = {key: child for key, child in artifact.children.items() if not child.phase.is_terminal}
    had_failed = artifact.error is not None
    if not had_failed:
        lost = [(key, child) for key, child in artifact.children.items() if _is_lost(child.phase)]
        if lost and artifact.desired is not Desired.cancel:
            key, child = lost[0]
            artifact = draft.change_artifact(artifact.id, error=f"{key}: {child.id} {child.phase}")
            draft.event(artifact.id, "job_failing", str(artifact.error))
    wanted = Desired.cancel if artifact.error is not None else artifact.desired
    own = [child for child in active.values() if not child.is_shared]
    meant = active.values() if wanted is Desired.run else own
    if any(child.desired not in (wanted, Desired.cancel) for child in meant):
        draft.want_of_children(artifact.id, wanted)
    if wanted is Desired.cancel:
        has_failed = artifact.error is not None
        # others learn of a failure with the next tick, and only then no longer count as needing what is shared
        is_ending = bool(own) or has_failed is not had_failed
        ended = Phase.failed if has_failed else Phase.cancelled
        draft.change_artifact(artifact.id, phase=Phase.cancelling if is_ending else ended)
        return
    if wanted is Desired.pause or draft.seen.is_draining:
        draft.change_artifact(artifact.id, phase=Phase.paused if wanted is Desired.pause else artifact.phase)
        return
    due = _due(draft, artifact)
    for node in due[: max(0, MAX_ACTIVE_CHILDREN - len(active))]:
        draft.submit_node(artifact.id, node)
    draft.change_artifact(artifact.id, phase=Phase.running if due or active else Phase.succeeded)


def _due(draft: Draft, artifact: ArtifactView) -> list[Node]:
    spec, work = artifact.spec, artifact.work
    if isinstance(spec, EvaluationSpec):
        assert isinstance(work, EvaluationWork)
        return due_of_evaluation(spec, work, artifact.children)
    assert isinstance(spec, ComparisonSpec)
    assert isinstance(work, ComparisonWork)
    return due_nodes(spec, work, artifact.children, lambda job_id: manifest_path(draft.options.data_dir, job_id))


def _is_lost(phase: Phase) -> bool:
    return phase in (Phase.failed, Phase.cancelled)
