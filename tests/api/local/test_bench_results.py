"""The arithmetic and parsing of benchmarks; what they measure is never asserted."""

from pathlib import Path

import pytest

from api.local.bench_control_plane import ControlPlaneRow, decades
from api.local.bench_finetune import FinetuneResult, TrainingPair, TrainingRun, bench_finetune
from api.local.bench_machine import Spread, this_machine
from api.local.bench_peer import PeerPair, PeerRun
from api.local.bench_process import measure_apart
from api.local.bench_report import bench_report
from api.local.bench_scoring import bench_math_answer
from api.local.bench_selection import bench_selection
from api.local.bench_service import parse_metric
from api.local.bench_swap import SwapRun
from api.local.bench_throughput import Pair, PlainRun, ServiceRun, ThroughputResult
from service.errors import IsoflopError
from service.finetunes import preset


def make_pair(*, seconds: float = 12.5, drawing_s: float = 10.0, plain_s: float = 10.0) -> Pair:
    service = ServiceRun(
        samples=10, tokens=1000, seconds=seconds, drawing_s=drawing_s, scored_s=seconds + 1, busy_s=drawing_s, flops=1.0
    )
    return Pair(service=service, plain=PlainRun(tokens=1000, seconds=plain_s))


def test_pair_ratio_compares_tokens_a_second_with_and_without_the_start() -> None:
    pair = make_pair()

    assert pair.ratio == pytest.approx(0.8)
    assert pair.drawing_ratio == pytest.approx(1.0)


def test_throughput_ratio_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    # the machine became half as fast between the pairs, and took both sides with it
    pairs = [make_pair(), make_pair(seconds=25.0, plain_s=20.0), make_pair(seconds=10.0, plain_s=5.0)]

    result = ThroughputResult.of(this_machine(), (), 0, pairs)

    assert result.ratio == Spread(median=pytest.approx(0.8), lowest=0.5, highest=0.8, repeats=3)  # type: ignore[arg-type]


def test_ratio_to_a_peer_leaves_out_what_comes_before_the_first_row_on_both_sides() -> None:
    service = make_pair(seconds=50.0, drawing_s=10.0).service

    pair = PeerPair(service=service, peer=PeerRun(rows=10, tokens=1200, seconds=24.0, total_s=90.0))

    assert pair.ratio == pytest.approx(2.0)


def test_spread_names_extremes_only_of_repeats() -> None:
    assert Spread.of([2.0]).to_text() == "2.00"
    assert Spread.of([3.0, 1.0, 1000.0]).to_text(1) == "3.0 (1.0..1,000.0, 3 times)"


def test_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Spread.of([])


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [(1000, [1000]), (10_000, [10_000]), (30_000, [10_000, 30_000]), (1_000_000, [10_000, 100_000, 1_000_000])],
)
def test_decades_grow_tenfold_and_end_at_the_size_asked_for(samples: int, sizes: list[int]) -> None:
    assert decades(samples) == sizes


def test_decades_below_one_sample_a_problem_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        decades(999)


def test_control_plane_row_tells_microseconds_a_sample() -> None:
    row = ControlPlaneRow(
        samples=10_000, seconds=5.0, tick_cpu_s=0.25, process_cpu_s=1.0, ticks=50, rss_mib=100.0, scoring_busy_s=1.0
    )

    assert row.tick_us_per_sample == pytest.approx(25.0)


def test_parse_metric_takes_the_sample_without_labels() -> None:
    text = '# HELP a_total Ticks.\n# TYPE a_total counter\na_total{model="x"} 7.0\na_total 1.5e3\nb_a_total 9.0\n'

    assert parse_metric(text, "a_total") == 1500.0


def test_parse_metric_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="'gone'"):
        parse_metric("a 1.0\n", "gone")


def test_bench_selection_makes_training_sets_of_what_it_wrote(tmp_path: Path) -> None:
    result = bench_selection(tmp_path, 2000, variants=["correct", "all"])

    assert [run.filters["samples"] for run in result.runs] == [2000, 2000]
    assert all(run.rows == run.filters["rows"] > 0 for run in result.runs)
    assert all(run.peak_mib >= run.idle_mib > 0 for run in result.runs)


def test_bench_selection_of_too_few_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        bench_selection(tmp_path, 999)


def test_bench_math_answer_in_words_grades_every_solution_as_made() -> None:
    result = bench_math_answer(rows=200, repeats=1, is_marked=False)

    assert result.wrong_verdicts == 0


def test_bench_report_makes_the_report_of_what_it_wrote(tmp_path: Path) -> None:
    result = bench_report(tmp_path, 2000, repeats=1)

    assert (result.samples, result.problems, result.seconds.repeats) == (2000, 20, 1)
    assert all(run.peak_mib >= run.idle_mib > 0 for run in result.runs)
    assert {path.suffix for path in tmp_path.glob("report.*")} == {".html", ".md", ".json"}


def test_bench_report_of_too_few_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1000"):
        bench_report(tmp_path, 999, repeats=1)


def test_finetune_ratios_are_medians_within_pairs() -> None:
    def run(step_cpu_s: float, cpu_s: float) -> TrainingRun:
        return TrainingRun(step_cpu_s=step_cpu_s, cpu_s=cpu_s, seconds=2 * cpu_s)

    # the machine became half as fast in the second pair, and took both sides with it
    pairs = [
        TrainingPair(ours=run(1.0, 12.0), plain=run(1.0, 10.0)),
        TrainingPair(ours=run(2.2, 22.0), plain=run(2.0, 20.0)),
        TrainingPair(ours=run(1.3, 10.0), plain=run(1.0, 10.0)),
    ]

    result = FinetuneResult.of(this_machine(), preset("tiny"), pairs)

    assert result.step_ratio.median == pytest.approx(1.1)
    assert result.run_ratio.median == result.clock_ratio.median == pytest.approx(1.1)
    assert (result.run_ratio.lowest, result.run_ratio.highest) == (pytest.approx(1.0), pytest.approx(1.2))


@pytest.mark.parametrize(("num_pairs", "steps"), [(1, 7), (0, 8)])
def test_bench_finetune_too_short_to_compare_is_refused(tmp_path: Path, num_pairs: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 8 and pairs 1, got {steps} and {num_pairs}"):
        bench_finetune(tmp_path, num_pairs=num_pairs, steps=steps)


def test_swaps_are_summed_up_without_the_load() -> None:
    run = SwapRun(model="m", weight_bytes=1, load_s=20.0, swaps_s=(0.02, 0.03, 0.04))

    assert run.spread.to_text(3) == "0.030 (0.020..0.040, 3 times)"


def test_measurement_apart_that_fails_says_why() -> None:
    with pytest.raises(IsoflopError, match=r"api\.local\.nothing 1 ended with 1: .*No module named"):
        measure_apart("api.local.nothing", 1)
