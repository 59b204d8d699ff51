r"""The table of judgements in latex_pairs.txt: a reference, then answers that are the same, or that are not.

Judged as mathematics, and as a grader of a contest would: `\frac{2}{4}` answers `\frac{1}{2}`, `12\text{ cm}` answers
`12`, `12\text{ m}` does not answer `12\text{ cm}`. What stands under "judged" needs the judge of formulas.
"""

from pathlib import Path

_TABLES: dict[str, list[tuple[str, str]]] = {}
for _section in Path(__file__).with_name("latex_pairs.txt").read_text(encoding="utf-8").split("\n## ")[1:]:
    _name, *_lines = _section.rstrip("\n").split("\n")
    _rows = [line.split("\t") for line in _lines if line]
    _TABLES[_name] = [(reference, answer) for reference, *answers in _rows for answer in answers]

SAME = _TABLES["same"]
OTHER = _TABLES["other"]
JUDGED_SAME = _TABLES["judged same"]
JUDGED_OTHER = _TABLES["judged other"]
