"""Untrusted text made harmless to look at, and numbers made readable. Nothing here knows a table or a page."""

import re
import unicodedata

NONE = "–"  # a blank cell: not measured, never zero
_CONTROL_PICTURES = 0x2400
_KEPT = "\n\t"
_WITHOUT_KEPT = dict.fromkeys(map(ord, _KEPT))


def clean(text: object, limit: int = 2000) -> str:
    """`text` with every invisible instruction made visible, cut to `limit` characters.

    Terminal escapes and other control characters become their control pictures (␛), direction overrides and other
    format characters their code point (⟨U+202E⟩), lone surrogates the replacement character. The cut comes first, so a
    line of a megabyte costs no more than a short one, and says how much is missing.
    """
    text = str(text)
    start = text[:limit]
    plain = start.translate(_WITHOUT_KEPT).isprintable()
    shown = start if plain else "".join(_visible(character) for character in start)
    missing = len(text) - limit
    return f"{shown} […{missing:,} more characters]" if missing > 0 else shown


def _visible(character: str) -> str:
    if character in _KEPT or character.isprintable():
        return character
    code = ord(character)
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == 0x7F:
        return "␡"
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    if character == "\N{ZERO WIDTH JOINER}":  # part of ordinary emoji and Indic text
        return character
    return f"⟨U+{code:04X}⟩"


def one_line(text: object, limit: int = 200) -> str:
    """`clean`, on a single line: for table cells, attributes and the terminal."""
    return re.sub(r"\s+", " ", clean(text, limit)).strip()


_IN_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$#]|(?<![^\W_])_|_(?![^\W_])|(?<=\w):(?=//)")


def in_markdown(text: object, limit: int = 2000) -> str:
    """`text` on one line that no Markdown reader takes for markup, a table's border, HTML or a link."""
    escaped = _IN_MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text, limit).replace("&", "&amp;"))
    return re.sub(r"^(\d*)([.)](?=\s|$)|[-+=](?=[-+=\s]|$))", r"\1\\\2", escaped)  # at a line's start: no list or rule


_IN_LATEX = {
    **{character: f"\\{character}" for character in "{}$&#_%"},
    **{"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", '"': r"{\char34}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"{\char96}", "'": "{'}"},
    **{"[": "{[}", "]": "{]}", "*": "{*}", "-": "{-}"},  # no argument of \\ or a rule, no ligature
    **{"–": "--", "−": "$-$", "…": r"\ldots{}"},
    **{"→": r"$\to$", "×": r"$\times$", "±": r"$\pm$", "≤": r"$\le$", "≥": r"$\ge$"},
    **{"“": "``", "”": "''", "‘": "`", "’": "'", "τ": r"$\tau$", "β": r"$\beta$", "κ": r"$\kappa$", "α": r"$\alpha$"},
}


def in_latex(text: object, limit: int = 2000) -> str:
    """`text` on one line that LaTeX sets and does not run; a character that plain LaTeX lacks as its code point."""
    return "".join(
        _IN_LATEX.get(character, character if character.isascii() else f"{{[}}U+{ord(character):04X}{{]}}")
        for character in one_line(text, limit)
    )


def percent(rate: float | None, digits: int = 1) -> str:
    """A fraction as `12.3 %`."""
    return NONE if rate is None else f"{100 * rate:.{digits}f} %"


def points(difference: float | None, digits: int = 1, signed: bool = True) -> str:
    """A difference of fractions in percentage points: `+12.3`, with a true minus sign."""
    if difference is None:
        return NONE
    value = round(100 * difference, digits) + 0.0  # no -0.0
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """`[1.2, 3.4]` in percent; empty when a bound is missing."""
    return "" if low is None or high is None else f"[{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def p_value(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 cell`, `2 cells`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def any_of(number: int, noun: str) -> str:
    """`the one cell`, `any of 7 cells`: for what was shown of none of them."""
    return f"the one {noun}" if number == 1 else f"any of {count(number, noun)}"


def listed(items: list[str], limit: int = 6) -> str:
    """`a, b and c`; a long list ends in how many are left out."""
    if len(items) > limit:
        return ", ".join(items[: limit - 1]) + f" and {len(items) - limit + 1} more"
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 2 else items)
