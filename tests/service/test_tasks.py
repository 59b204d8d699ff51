"""Planned samples as runs, what is left of them, and the moves of the state machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.tasks import ALLOWED_MOVES, Task, TaskState, count_samples, expand_runs, move, without
from service.work import TaskKind

RUNS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(1, 5)), max_size=20, unique_by=lambda run: run[0]
)


def make_task(state: TaskState = TaskState.pending, **changes: object) -> Task:
    return Task(id="t", job_id="j", kind=TaskKind.generate, order=0, model="m", state=state, **changes)  # type: ignore[arg-type]


@given(RUNS)
def test_expand_runs_lists_every_sample_in_order(runs):
    array = np.array(runs, dtype=np.int32).reshape(-1, 3)
    expected = [(problem, first + i) for problem, first, num in runs for i in range(num)]
    assert [tuple(pair) for pair in expand_runs(array).tolist()] == expected
    assert count_samples(array) == len(expected)


@given(RUNS, st.data())
def test_without_keeps_exactly_what_is_not_committed(runs, data):
    array = np.array(runs, dtype=np.int32).reshape(-1, 3)
    planned = [tuple(pair) for pair in expand_runs(array).tolist()]
    committed = data.draw(st.lists(st.sampled_from(planned), unique=True)) if planned else []
    left = without(array, np.array(committed, dtype=np.int32).reshape(-1, 2))
    assert [tuple(pair) for pair in expand_runs(left).tolist()] == [p for p in planned if p not in committed]


@pytest.mark.parametrize("state", list(TaskState))
def test_move_anything_not_allowed_is_refused(state):
    for target in set(TaskState) - ALLOWED_MOVES[state]:
        with pytest.raises(ValueError, match="no move"):
            move(make_task(state), target)


def test_move_back_to_pending_starts_a_fresh_attempt():
    task = make_task(TaskState.running, attempt=2, host="h", credit=9, settled=4, settled_value=3.5, num_parts=2)
    again = move(task, TaskState.pending)
    assert (again.attempt, again.host, again.credit, again.settled, again.num_parts) == (3, None, 0, 0, 0)
    assert again.attempt_id == "t.3"


def test_terminal_states_have_no_moves():
    assert {state for state in TaskState if state.is_terminal} == {s for s, to in ALLOWED_MOVES.items() if not to}
