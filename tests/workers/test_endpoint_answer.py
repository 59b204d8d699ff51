"""Answers of servers, read from bytes that come in any pieces."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.endpoint_answer import EventLines, KeyRefused, Lost, Refused, Rejected, failure_of, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STREAM = ': a comment\r\ndata: {"a":\u2028 "é"}\r\n\r\nevent: x\ndata:{"b": 2}\n\ndata: [DONE]\n\n'.encode()


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_however_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    lines = EventLines()

    documents = [d for a, b in pairwise(edges) for d in lines.feed(STREAM[a:b])]

    assert documents == ['{"a":\u2028 "é"}'.encode(), b'{"b": 2}']
    assert lines.has_ended


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, expected: float | None) -> None:
    assert retry_after_s(header, NOW) == expected


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, KeyRefused),
        (403, KeyRefused),
        (429, Refused),
        (503, Refused),
        (408, Lost),
        (500, Lost),
        (502, Lost),
        (504, Lost),
        (301, Rejected),
        (400, Rejected),
        (402, Rejected),
        (404, Rejected),
        (422, Rejected),
    ],
)
def test_status_says_whether_the_server_was_at_work(status: int, kind: type[Exception]) -> None:
    assert type(failure_of(status, b"{}", None, NOW)) is kind


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b'{"error": {"message": "too\\n long"}}', "HTTP 400: too long"),
        (b'{"error": "Unauthorized"}', "HTTP 400: Unauthorized"),
        (b'{"detail": 1}', "HTTP 400: {'detail': 1}"),
        (b"[1, 2]", "HTTP 400: [1, 2]"),
        (b"\xff plain", "HTTP 400: \ufffd plain"),
        (b"x" * 1000, "HTTP 400: " + "x" * 200 + "…"),
    ],
)
def test_what_a_server_says_is_shown_on_one_short_line(body: bytes, shown: str) -> None:
    assert str(failure_of(400, body, None, NOW)) == shown
