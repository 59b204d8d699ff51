"""Closes what simulations opened."""

from collections.abc import Iterator

import pytest

from tests.simulation.world import Simulation


@pytest.fixture(autouse=True)
def close_stores() -> Iterator[None]:
    """Connections left open would be an unraisable warning in some later test."""
    yield
    for store in Simulation.opened:
        store.close()
    Simulation.opened.clear()
