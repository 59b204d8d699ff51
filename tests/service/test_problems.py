"""A problem set is refused with the row and the reason, whatever is in it; what is kept can be read back."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidInput
from service.problems import LEVELS, ProblemSource, register_problems

GOOD = b'{"question": "1+1?", "answer": 2}\n'


def register(path: Path) -> str:
    return register_problems(name="sums", source=ProblemSource(path=str(path)), data_dir=path.parent / "data").path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"question": "q", "answer": NaN}', "answer: got nan, allowed: a text or a finite number"),
        (b'{"question": "q", "answer": -Infinity}', "answer: got -inf"),
        (b'{"question": "q", "answer": 1e400}', "answer: got inf"),
        (b'{"question": "q", "answer": "NaN"}', "answer: got 'NaN'"),
        (b'{"question": "q", "answer": 1, "level": 99999999999999999999}', "level: got 99999999999999999999, allowed"),
        (b'{"question": "q", "answer": 1, "level": 32768}', "level: got 32768"),
        (b'{"question": "q \\ud800", "answer": 1}', r"question: got the lone surrogate '\ud800' at character 2"),
        (b'{"question": "q", "answer": "\\udfff"}', r"answer: got the lone surrogate '\udfff'"),
        (b'{"question": "q", "answer": 1, "id": "\\ud800"}', "id: got the lone surrogate"),
        (b'{"\\ud800": "q", "answer": 1}', r"no such column among \ud800, answer"),
        (b'{"question": "caf\xe9", "answer": 1}', "not UTF-8 text: invalid continuation byte 0xe9 at byte 17"),
        (b'{"question": "q", "answer": ' + b"9" * 5000 + b"}", "JSON that cannot be read"),
        (b"[" * 100_000, "row 2: JSON that cannot be read"),
        (b'{"question": "q", "answer": true}', "answer: got True"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_row_that_cannot_be_kept_is_refused_with_its_number(line: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(GOOD + line + b"\n")

    with pytest.raises(InvalidInput) as caught:
        register(path)

    assert "row 2: " in str(caught.value)
    assert words in str(caught.value)
    str(caught.value).encode()


def test_answers_and_levels_at_their_ends_are_kept(tmp_path: Path) -> None:
    answers = [10**400, -0.5, "infinite sum = 2", "18"]
    rows = [
        {"question": f"q{i}", "answer": answer, "level": level}
        for i, (answer, level) in enumerate(zip(answers, [LEVELS[0], LEVELS[-1], 0, None], strict=True))
    ]
    path = tmp_path / "good.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))

    table = pq.read_table(register(path))

    assert table["reference"].to_pylist() == [str(answer) for answer in answers]
    assert table["level"].to_pylist() == [LEVELS[0], LEVELS[-1], 0, None]


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")]
    )
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"question": texts, "answer": ["1"]}), path)

    with pytest.raises(InvalidInput, match="not UTF-8 text: invalid start byte at byte 0"):
        register(path)


def test_structure_that_is_no_json_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"question": ["q"], "answer": ["1"], "structure": [b"\x00"]}), path)

    with pytest.raises(InvalidInput, match="row 1: structure: got bytes"):
        register(path)
