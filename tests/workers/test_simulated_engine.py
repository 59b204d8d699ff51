"""The simulation: seeded, bounded, and honest about what it is."""

import re
from collections.abc import Sequence

import pytest

from service.sampling import SamplingSpec
from workers.engine_protocol import EngineDead, Finished
from workers.simulated_engine import SimulatedEngine, SimulatedTokenizer


def draw(
    engine: SimulatedEngine, prompts: Sequence[str], *, num_samples: int = 1, max_tokens: int = 100
) -> dict[str, Finished]:
    for problem, prompt in enumerate(prompts):
        for sample in range(num_samples):
            engine.add(
                f"{problem}/{sample}",
                SimulatedTokenizer().encode(prompt),
                max_tokens=max_tokens,
                sampling=SamplingSpec(),
                seed=problem * 1_000_003 + sample * 7_919,
            )
    done: dict[str, Finished] = {}
    while engine.num_unfinished():
        done |= {finished.request_id: finished for finished in engine.step()}
    return done


def share_right(done: dict[str, Finished]) -> float:
    return sum(finished.text.endswith("#### 18") for finished in done.values()) / len(done)


def test_tokenizer_restores_text() -> None:
    tokenizer = SimulatedTokenizer()

    assert tokenizer.decode([tokenizer.bos_token_id, *tokenizer.encode("3 € [poison]")]) == "3 € [poison]"


def test_completions_depend_on_seed_and_prompt_alone() -> None:
    prompts = [f"{i} [answer=18]" for i in range(20)]

    slow = draw(SimulatedEngine(max_num_seqs=1, tokens_per_step=1), prompts, num_samples=3)
    fast = draw(SimulatedEngine(max_num_seqs=50), prompts, num_samples=3)

    assert slow == fast
    assert len({finished.text for finished in slow.values()}) > 5


def test_accuracy_is_met_on_average_and_differs_between_problems() -> None:
    done = draw(SimulatedEngine(answer_accuracy=0.3), [f"{i} [answer=18]" for i in range(100)], num_samples=50)

    per_problem = [share_right({k: v for k, v in done.items() if k.startswith(f"{i}/")}) for i in range(100)]
    assert 0.22 < share_right(done) < 0.38
    assert max(per_problem) - min(per_problem) > 0.3


def test_accuracy_of_yes_or_no_is_met_on_average() -> None:
    done = draw(SimulatedEngine(answer_accuracy=0.7), [f"{i} [answer=yes]" for i in range(50)], num_samples=20)

    said = [finished.text.rpartition(": ")[2] for finished in done.values()]
    assert set(said) == {"yes", "no"}
    assert 0.6 < said.count("yes") / len(said) < 0.8


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_accuracy_at_its_ends_is_exact(accuracy: float) -> None:
    assert share_right(draw(SimulatedEngine(answer_accuracy=accuracy), ["[answer=18]"], num_samples=30)) == accuracy


def test_equations_hold_and_end_in_an_answer() -> None:
    for finished in draw(SimulatedEngine(), ["no marker"], num_samples=30).values():
        match = re.fullmatch(r"(-?\d+)\+(-?\d+)=(-?\d+)\. #### (-?\d+)", finished.text)
        assert match is not None
        first, second, total, answer = map(int, match.groups())
        assert first + second == total == answer


def test_completion_over_max_tokens_is_cut_without_an_answer() -> None:
    done = draw(SimulatedEngine(mean_tokens=40), ["[answer=18]"], num_samples=20, max_tokens=5)

    assert {finished.finish_reason for finished in done.values()} == {"length"}
    assert {finished.completion_tokens for finished in done.values()} == {5}
    assert not any("####" in finished.text for finished in done.values())


def test_poison_kills_the_engine_once_it_runs() -> None:
    engine = SimulatedEngine(max_num_seqs=1, mean_tokens=8, tokens_per_step=100)

    with pytest.raises(EngineDead, match="0/0"):
        draw(engine, ["please [poison]"])


def test_no_more_run_at_once_than_allowed() -> None:
    engine = SimulatedEngine(max_num_seqs=3, mean_tokens=10, tokens_per_step=1)
    for i in range(10):
        engine.add(str(i), [1], max_tokens=50, sampling=SamplingSpec(), seed=i)

    engine.step()

    assert engine.unfinished_tokens() == 3


def test_aborted_requests_leave_and_those_that_ran_say_how_far() -> None:
    engine = SimulatedEngine(max_num_seqs=2, mean_tokens=10, tokens_per_step=2)
    for i in range(4):
        engine.add(str(i), [1], max_tokens=50, sampling=SamplingSpec(), seed=i)
    engine.step()

    partial = engine.abort(["0", "1", "3"])

    assert {(finished.request_id, finished.completion_tokens) for finished in partial} == {("0", 2), ("1", 2)}
    assert engine.num_unfinished() == 1
    while engine.num_unfinished():
        assert [finished.request_id for finished in engine.step()] in ([], ["2"])


def test_steps_and_loading_take_the_time_they_are_told() -> None:
    waits: list[float] = []
    engine = SimulatedEngine(load_s=9.0, step_s=0.5, sleep=waits.append)
    engine.step()

    assert waits == [9.0, 0.5]


def test_version_says_that_it_is_a_simulation() -> None:
    assert "simulated" in SimulatedEngine.version
