"""What every test shares: a quiet offline environment, one rule about skipping, and the programs of the system.

Fixtures of one folder belong into that folder's own conftest.py.
"""

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports the libraries that read them: no test asks a model hub or reports usage to anybody.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# A deadline per example measures the machine's other work, not the code; pytest-timeout bounds the whole test.
settings.register_profile("isoflop", deadline=None)
settings.load_profile("isoflop")

REQUIRE_ALL = os.environ.get("ISOFLOP_REQUIRE_ALL") == "1"
SKIP_ALLOWED = "gpu"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ISOFLOP_REQUIRE_ALL=1 a skipped test is a failed one, unless it needs a GPU."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail") and SKIP_ALLOWED not in item.keywords:
        fail_instead_of_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for modules that skip themselves while they are collected."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        fail_instead_of_skip(report)
    return report


def fail_instead_of_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turns `report` into a failure that names the reason for the skip."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"ISOFLOP_REQUIRE_ALL=1 allows no skipping, got: {reason}"


@pytest.fixture(scope="session")
def require_program() -> Callable[..., Path]:
    """`require_program("chromium", "google-chrome")`: the first one found on PATH; without any, a skip."""

    def find(*names: str) -> Path:
        for name in names:
            if (found := shutil.which(name)) is not None:
                return Path(found)
        pytest.skip(f"needs one of {', '.join(names)} on PATH")

    return find
