"""What engine options say of themselves."""

import pytest

from service.models import EngineOptions


@pytest.mark.parametrize(
    ("stated", "on_gpu", "is_eager"),
    [(None, True, False), (None, False, True), (True, True, True), (False, False, False)],
)
def test_graphs_are_captured_on_gpus_unless_stated_otherwise(stated: bool | None, on_gpu: bool, is_eager: bool) -> None:
    assert EngineOptions(enforce_eager=stated).is_eager(on_gpu=on_gpu) is is_eager
