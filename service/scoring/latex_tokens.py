r"""Cuts the LaTeX of one answer into tokens, after what only concerns its looks has gone.

Invariant: linear in the text, at most MAX_SEGMENT characters and MAX_TOKENS tokens of it; what has more is not read.
Whatever changes an answer's meaning stays. Pure; imports nothing of the project but `plaintext`.
"""

import re

from service.scoring.plaintext import MAX_SEGMENT, typographic

MAX_TOKENS = 300

_NOTHING = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|[bB]igg?[lr]?|middle)(?![a-zA-Z])|\\!|\*\*|\\boldsymbol(?![a-zA-Z])"
)
_SPACE = re.compile(r"\\(?:quad|qquad|hspace\{[^{}]*\})(?![a-zA-Z])|\\[,;: ]|~|&nbsp;|\s+")
_DELIMITERS = re.compile(r"\\[()\[\]]|\\?\$")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|normal|tt|sf)?|mathrm|mathsf|mathtt|mathbf|mathit|mbox|operatorname) *(?=\{)")
_DEGREES = re.compile(r" *\^ *(?:\\circ(?![a-zA-Z])|\{ *\\circ *\})|\\degree(?![a-zA-Z])")
_SHORT_FRACTION = re.compile(r"\\frac *([0-9a-z]) *([0-9a-z])(?![0-9])|\\frac *([0-9a-z]) *(?=\{)")
_HALF_FRACTION = re.compile(r"(\\frac *\{[^{}]*\}) *([0-9a-z])(?![0-9])")
_SHORT_ROOT = re.compile(r"\\sqrt *([0-9a-z])(?![0-9])")
_TOKEN = re.compile(
    r"(?P<text>\\text\{[^{}]*\})|(?P<begin>\\(?:begin|end) *\{[a-z*]+\})|(?P<command>\\[a-zA-Z]+|\\.)"
    r"|(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?)|[0-9]+(?:\.(?:[0-9]+|(?=\\overline)))?|\.[0-9]+)|(?P<char>[^\s])"
)
_SYNONYMS = {
    "\\leq": "\\le",
    "\\leqslant": "\\le",
    "\\geq": "\\ge",
    "\\geqslant": "\\ge",
    "\\neq": "\\ne",
    "\\lt": "<",
    "\\gt": ">",
    "\\cdot": "*",
    "\\times": "*",
    "\\ast": "*",
    "\\div": "/",
    "\\lbrace": "\\{",
    "\\rbrace": "\\}",
    "\\lbrack": "[",
    "\\rbrack": "]",
    "\\tfrac": "\\frac",
    "\\dbinom": "\\binom",
    "\\tbinom": "\\binom",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{MIDDLE DOT}": "*",
    "\N{DOT OPERATOR}": "*",
    "\N{DIVISION SIGN}": "/",
    "\N{GREEK SMALL LETTER PI}": "\\pi",
    "\N{INFINITY}": "\\infty",
    "\N{LESS-THAN OR EQUAL TO}": "\\le",
    "\N{GREATER-THAN OR EQUAL TO}": "\\ge",
    "\N{UNION}": "\\cup",
    "\N{ELEMENT OF}": "\\in",
    "\N{PLUS-MINUS SIGN}": "\\pm",
    "\N{SUPERSCRIPT TWO}": "^2",
}


class Unread(ValueError):
    """The text is not of the kind that is read here, which says nothing about whether it is right."""


def tidy(text: str) -> str:
    r"""`text` without math delimiters, spacing and sizing commands; one name for each way to write a thing.

    `\dfrac12` becomes `\frac{1}{2}`, `\mathrm{cm}` `\text{cm}`, `^{\circ}` `°`.
    """
    text = typographic(text)
    if any(sign in text for sign in "\\$~*{"):
        if "\\begin" not in text:
            text = _DOUBLED.sub(r"\\", text)
        text = _NOTHING.sub("", _DELIMITERS.sub("", text.replace("\\\\", "\\cr ")))
        text = _TEXT.sub(r"\\text", _FRACTION.sub(r"\\frac", text))
        text = _DEGREES.sub("°", text.replace("{,}", ",").replace("\\%", "%").replace("\\#", "#"))
        text = _SHORT_FRACTION.sub(_braced, text)
        text = _SHORT_ROOT.sub(r"\\sqrt{\1}", _HALF_FRACTION.sub(r"\1{\2}", text))
    return _SPACE.sub(" ", text).strip(" ,;:").rstrip(" .,;:")


def _braced(match: re.Match[str]) -> str:
    if match[3]:
        return f"\\frac{{{match[3]}}}"
    return f"\\frac{{{match[1]}}}{{{match[2]}}}"


def tight(text: str) -> str:
    """Tidied text without any space: what is equal here is the same answer, written the same way."""
    return text.replace(" ", "")


def tokens_of(text: str) -> list[str]:
    r"""Tokens of tidied text. `\text{...}`, `\begin{...}`, commands and numbers are one each, spaces none.

    Raises:
        Unread: there are none, or more than the bounds of this module.
    """
    if len(text) > MAX_SEGMENT:
        raise Unread(f"{len(text)} characters, at most {MAX_SEGMENT} are read")
    found = [_SYNONYMS.get(token, token) for token in (match[0] for match in _TOKEN.finditer(text))]
    if not found or len(found) > MAX_TOKENS:
        raise Unread(f"{len(found)} tokens; allowed: 1 to {MAX_TOKENS}")
    return found
