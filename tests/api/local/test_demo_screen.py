"""The demo's table keeps its numbers whole on every width."""

import io

import pytest
from rich.console import Console

from api.local.demo_screen import PLAIN_WIDTH, comparison_table, demo_console
from service.report_words import comparison_rows
from tests.api.dashboard.example_figures import comparison


def printed(width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(comparison_table(comparison()))
    return stream.getvalue().splitlines()


def test_table_without_a_terminal_has_a_line_for_each_row() -> None:
    assert len(printed(PLAIN_WIDTH)) == 1 + len(comparison_rows(comparison()))


@pytest.mark.parametrize("width", [80, 100, PLAIN_WIDTH])
def test_table_keeps_numbers_whole_and_marks_what_is_not_significant(width: int) -> None:
    text = "\n".join(printed(width))

    assert all(value in text for row in comparison_rows(comparison()) for value in row.values)
    assert "-.008 [-.034, +.019]" in text
    assert text.count("n.s.") == 1


def test_console_without_a_terminal_is_wide_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    assert demo_console().width >= PLAIN_WIDTH
