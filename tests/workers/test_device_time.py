"""Device time of attempts that share an engine: all of it is somebody's, none of it twice."""

from pathlib import Path

import pytest

from service.cluster import AttemptReport, AttemptState, Orders, Stop, StopMode
from service.currency import Currency
from service.devices import Devices
from service.shards import part_path
from tests.workers.generator_rig import Rig


def device_s(report: AttemptReport) -> float:
    usages = [*(receipt.usage for receipt in report.receipts), report.wasted]
    return sum(usage.gpu_s + usage.cpu_s for usage in usages)


def busy_s(report: AttemptReport) -> float:
    return sum(receipt.usage.busy_s for receipt in report.receipts) + report.wasted.busy_s


@pytest.mark.parametrize(("devices", "factor"), [(Devices(cores=1), 1.0), (Devices(gpus=4), 4.0)])
def test_attempts_that_share_an_engine_share_its_time_by_their_samples(
    tmp_path: Path, devices: Devices, factor: float
) -> None:
    rig = Rig(tmp_path, devices=devices, step_s=0.5)
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 30]]), rig.spec([[1, 0, 10]], name="b.1"), credit=1e15)
    rig.run()

    first, second = rig.report(), rig.report("b.1")
    host = rig.host.exchange(Orders())
    assert host.busy_s > 0
    assert busy_s(first) + busy_s(second) == pytest.approx(host.busy_s)
    assert device_s(first) + device_s(second) == pytest.approx(factor * host.busy_s)
    assert busy_s(first) > busy_s(second) > 0
    is_gpu = devices.gpus > 0
    assert all((receipt.usage.gpu_s > 0) is is_gpu for receipt in first.receipts)


def test_aborted_attempt_reports_the_time_of_what_was_dropped(tmp_path: Path) -> None:
    rig = Rig(tmp_path, step_s=2.0)
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 30]], flush_rows=1000, flush_s=1e6), credit=1e15)
    rig.host.step_once()
    rig.host.step_once()
    running = rig.report()
    assert running.busy_s == 4.0
    rig.host.exchange(Orders(stops=(Stop(attempt_id="t.1", mode=StopMode.abort),)))

    report = rig.run()

    assert busy_s(report) == report.busy_s == 4.0


def test_time_of_rows_that_cannot_be_written_is_waste(tmp_path: Path) -> None:
    rig = Rig(tmp_path, step_s=1.0)
    rig.prepare()
    rig.begin(rig.spec([[0, 0, 40]], flush_rows=10), credit=1e15)
    part_path(rig.directory / "t.1", 1).mkdir(parents=True)  # in the way of the second part

    rig.run()
    report = rig.run()

    assert [receipt.part for receipt in report.receipts] == [0]
    assert report.wasted.busy_s > 0
    assert busy_s(report) == pytest.approx(report.busy_s)


def test_budget_of_device_time_stops_admission_at_its_credit_and_finishes_what_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, devices=Devices(gpus=2), step_s=0.1)
    rig.prepare()
    spec = rig.spec([[0, 0, 500]], currency=Currency.gpu_hours, flush_rows=1000, flush_s=1e6)
    rig.begin(spec, credit=3000, is_final=True)
    for _ in range(5):
        rig.host.step_once()
    running = rig.report()
    assert running.used == 5 * 0.1 * 2 * 1000  # told though no part is written yet
    assert running.inflight_worst == rig.engine.num_unfinished()
    assert running.wanted - running.used > 10_000

    report = rig.run()

    assert report.state is AttemptState.stopped
    assert report.used == pytest.approx(1000 * device_s(report), abs=1)
    longest_s = 40 / 4 * 0.1 * 2  # tokens of a sample, tokens of a step; twice, for some wait inside
    assert 3000 - 20 <= report.used <= 3000 + 1000 * 2 * longest_s
    (receipt,) = report.receipts
    assert receipt.indices is not None
    assert sorted(receipt.indices[:, 1]) == list(range(receipt.rows))
    assert report.returned is not None
    assert len(report.returned) == 500 - receipt.rows
