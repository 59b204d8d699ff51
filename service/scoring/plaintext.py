"""Turns a short piece of LaTeX, Markdown or typographic text into the plain form that numerals and comparisons read.

Invariant: never called on more than MAX_SEGMENT characters; every pattern is linear on them. Pure; imports nothing of
the project.
"""

import re

MAX_SEGMENT = 1000

_TYPOGRAPHY = str.maketrans(
    {
        "\N{MINUS SIGN}": "-",
        "\N{EN DASH}": "-",
        "\N{HYPHEN}": "-",
        "\N{NON-BREAKING HYPHEN}": "-",
        "\N{FULLWIDTH HYPHEN-MINUS}": "-",
        "\N{SMALL HYPHEN-MINUS}": "-",
        "\N{NO-BREAK SPACE}": " ",
        "\N{NARROW NO-BREAK SPACE}": " ",
        "\N{THIN SPACE}": " ",
        "\N{FIGURE SPACE}": " ",
        "\N{ZERO WIDTH SPACE}": "",
        "\N{FRACTION SLASH}": "/",
        "\N{DIVISION SLASH}": "/",
        "\N{FULLWIDTH PERCENT SIGN}": "%",
        "\N{FULLWIDTH DOLLAR SIGN}": "$",
        "\N{FULLWIDTH FULL STOP}": ".",
        "\N{FULLWIDTH COMMA}": ",",
        "½": " 1/2",
        "⅓": " 1/3",
        "⅔": " 2/3",
        "¼": " 1/4",
        "¾": " 3/4",
        "⅕": " 1/5",
        "⅖": " 2/5",
        "⅗": " 3/5",
        "⅘": " 4/5",
        "⅙": " 1/6",
        "⅚": " 5/6",
        "⅛": " 1/8",
        "⅜": " 3/8",
        "⅝": " 5/8",
        "⅞": " 7/8",
    }
    | {chr(ord("\N{FULLWIDTH DIGIT ZERO}") + digit): str(digit) for digit in range(10)}
)
_WRAPPER = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|math(?:rm|bf|it|sf)|mbox|boxed|fbox|emph|underline) ?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]?frac ?(?:\{([^{}]*)\} ?\{([^{}]*)\}|(\d) ?(\d))")
_DEGREES = re.compile(r"\^ ?(?:\\circ|\{ ?\\circ ?\})")
_LATEX_SIGN = re.compile(r"\\(?:times|cdot)(?![a-zA-Z])")
_LATEX_NOTHING = re.compile(r"\\(?:left|right|displaystyle|!|[()\[\]])|\\\\")
_LATEX_SPACE = re.compile(r"\\(?:quad|qquad|[,;: ])|~")
_EMPHASIS = re.compile(r"\*{2,3}|__|`")
_TIMES_TEN = re.compile(r" ?[*×x] ?10 ?\^ ?")


def plain(segment: str) -> str:
    r"""`segment` with single spaces and without markup.

    LaTeX wrappers give their content, fractions become `a/b`, degrees `°`; emphasis, math delimiters `\(` and
    typographic variants of signs, spaces and digits go. A dollar sign stays: it may be a currency.
    """
    segment = typographic(segment)
    if "\\" in segment or "~" in segment or "{,}" in segment:
        segment = _without_latex(segment)
    segment = _TIMES_TEN.sub("*10^", _EMPHASIS.sub("", segment.replace("$$", "")))
    return " ".join(segment.split()).strip("* ")


def typographic(segment: str) -> str:
    """`segment` with the plain variants of typographic signs, spaces and digits."""
    return segment if segment.isascii() else segment.translate(_TYPOGRAPHY)


def _without_latex(segment: str) -> str:
    segment = segment.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%").replace("\\#", "#")
    segment = _LATEX_SPACE.sub(" ", _LATEX_NOTHING.sub("", segment))
    segment = _LATEX_SIGN.sub("*", _DEGREES.sub("°", segment))
    # innermost braces first; answers nest two or three deep, and what is deeper stays as it is
    for _ in range(4):
        before = segment
        segment = _FRACTION.sub(_fraction, _WRAPPER.sub(r" \1", segment))
        if segment == before:
            break
    return segment


def _fraction(match: re.Match[str]) -> str:
    if match[3] is not None:
        return f" {match[3]}/{match[4]}"
    numerator, denominator = match[1].strip(), match[2].strip()
    if numerator.isalnum() and denominator.isalnum():
        return f" {numerator}/{denominator}"
    return f" ({numerator})/({denominator})"


def comparable(segment: str) -> str:
    """The form in which two answers that are not numbers are compared: plain, without spaces and outer punctuation.

    A single word or letter is compared without regard to case and brackets: `(B)` is `b`, `Yes.` is `yes`.
    """
    text = plain(segment).replace(" ", "").strip("$.,;:!")
    bare = text.strip("()[]")
    return bare.casefold() if bare.isalpha() else text
