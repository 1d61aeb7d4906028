"""What is wrong with a query, as words: which violations a text names, and which a gold answer holds.

The task is that of Logical Anomaly Classification (LogiCls, arXiv 2602.03530): to say which rule is broken, not only
that one is. The words were collected from the defect names of MVTec AD, VisA and MVTec LOCO AD and from how models
describe them. They are a list, not an understanding: docs/rewards.md says what that leaves open.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["VIOLATIONS", "gold_violations", "named_violations"]

_OFF: Final = "(?:abnormal|different|faulty|inconsistent|incorrect|mismatched|unexpected|unknown|unusual|wrong)"
_TWO_WORDS: Final = r"(?:\w++ ){0,2}"
_DIFFERS: Final = rf"{_TWO_WORDS}(?:differs?|different|incorrect|mismatch|wrong|changed)"

#: Violation, and the words for it: regular expressions on lower-case text with single spaces, each of whole words.
#: A word stands under one violation only, so that who uses it names one thing. Words that also describe what is right
#: ("the colors match") are here only where they say that it is not.
VIOLATIONS: Final[dict[str, str]] = {
    "missing": r"missing|absent|absence|lack(?:s|ing)?|not present|not there|not visible|no longer there|omitted|"
    r"empty|incomplete|fewer|too few|not enough|underflow",
    "extra": r"extra|additional|surplus|superfluous|too many|too much|duplicated?|overflow\w*",
    "count": rf"{_OFF} {_TWO_WORDS}(?:number|count|amount|quantity|ratio)|"
    rf"(?:number|count|amount|quantity|ratio) {_DIFFERS}",
    "color": rf"{_OFF} {_TWO_WORDS}(?:color|hue)s?|colors? {_DIFFERS}|discolor\w*|recolor\w*|stain\w*|faded|tinted",
    "swapped": r"swap\w*|exchanged|interchanged|switched|mixed(?: up)?|wrong order",
    "type": rf"{_OFF} {_TWO_WORDS}(?:type|kind|model|variant)s?|(?:type|kind) {_DIFFERS}|unknown|"
    r"(?:another|different|incorrect|wrong) (?:part|component|product)s?",
    "length": r"(?:too|very) (?:long|short)|longer|shorter",
    "place": rf"misplaced|displaced|misaligned|shifted|flip\w*|rotated|upside down|tilted|out of (?:place|position)|"
    rf"{_OFF} {_TWO_WORDS}(?:place|position|location|slot|orientation|direction)s?|"
    r"not (?:plugged|connected)|unplugged|disconnected|open lever",
    "bent": r"bent|bend(?:s|ing)?|twisted|crooked|kinked|warped|mis-?shapen|misshape|deform\w*|distort\w*|squeez\w*|"
    r"crush\w*|dent(?:s|ed)?|fold(?:s|ed)?|manipulated",
    "broken": r"broken|breaks?|breakage|crack\w*|fractur\w*|chipped|damag\w*|split|torn|shattered|snapped|burst",
    "cut": r"cut|sever(?:s|ed)|sliced|frayed",
    "scratch": r"scratch\w*|scuff\w*|scrap(?:e|es|ed)|abrasions?|abraded",
    "hole": r"(?:dark|small|tiny|visible) holes?|pok(?:e|es|ed)|punctur\w*|pierced|perforat\w*",
    "contamination": r"contamina\w*|dirt\w*|debris|foreign|residue|soiled|smear\w*|spots?",
    "print": rf"(?:{_OFF}|blurred|illegible) {_TWO_WORDS}(?:imprint|print|text|lettering|marking)s?|"
    r"misprint\w*|illegible|unreadable|smudged",
}

_SURFACE: Final = frozenset({"bent", "broken", "cut", "scratch", "hole", "contamination", "print"})
_LOGIC: Final = frozenset({"missing", "extra", "count", "color", "swapped", "type", "length", "place"})

#: Kinds of anomalies (`lad_reasoner.task.task.KINDS`) that say what is violated.
_NARROW_KINDS: Final[dict[str, frozenset[str]]] = {
    "number": frozenset({"missing", "extra", "count"}),
    "color": frozenset({"color"}),
    "existence": frozenset({"missing", "extra"}),
}

#: Kinds that only say of which sort it is.
_BROAD_KINDS: Final[dict[str, frozenset[str]]] = {
    "logical": _LOGIC,
    "structural": _SURFACE | {"color", "place"},
    "functional": frozenset({"swapped", "type", "place", "bent", "broken"}),
    "appearance": _SURFACE,
}

#: Names of defects that say nothing.
_SAYS_NOTHING: Final = frozenset({"", "anomaly", "bad", "combined", "defect", "defective", "good", "unnamed"})

_ANY: Final = re.compile(rf"\b(?:{'|'.join(f'(?P<{name}>{words})' for name, words in VIOLATIONS.items())})\b")

#: A denial reaches three words, commas between them: "no cracks, scratches or dents".
_DENIED: Final = re.compile(
    r"\b(?:no|not|never|without|neither|nor|none|free (?:of|from)|\w+n't)(?:[ ,]++(?!but\b)[\w-]++){0,3}[ ,]*+$"
)
_REACH: Final = 80


def named_violations(text: str, *, also: str = "") -> set[str]:
    """Return the violations that a text says are there; what it denies ("no part is missing") is left out.

    Args:
        text: Reasoning, in English.
        also: A phrase that counts as a violation of its own, such as a defect's name.

    Example:
        >>> sorted(named_violations("No scratches, but a screw is missing and the cable has a wrong colour."))
        ['color', 'missing']
    """
    text = _plain(text)
    found: set[str] = set()
    for match in _ANY.finditer(text):
        name = match.lastgroup or ""
        if name not in found and not _is_denied(text, match.start()):
            found.add(name)
    if also:
        for match in re.finditer(rf"\b{re.escape(also)}\b", text):
            if not _is_denied(text, match.start()):
                return found | {also}
    return found


@lru_cache(maxsize=4096)  # a data set has some dozens of kinds with their defects
def gold_violations(kind: str, defect: str) -> tuple[frozenset[str], str]:
    """Return the violations of a gold answer, and its defect's name where only that says what they are.

    The defect's name says which they are. A broad kind (logical, functional, ...) adds its own only where the name
    tells none; a narrow one unless the name is one of its: ``missing_cable`` of kind "existence" is missing and not
    extra, ``cable_swap`` of kind "color" is swapped or a color. Whoever says that the number is wrong is right about
    what is missing or extra, and the other way round.

    Args:
        kind: As the pair parquet has it; one that is not known adds nothing.
        defect: As the pair parquet has it; several are joined by a plus or a comma.

    Returns:
        The violations, empty where neither name tells any; and the defect's name as a phrase that says it too, empty
        where the violations do or where it is no name ("combined").

    Example:
        >>> violations, phrase = gold_violations("existence", "missing_cable")
        >>> sorted(violations), phrase
        (['count', 'missing'], '')
        >>> gold_violations("", "thread_side")
        (frozenset(), 'thread side')
    """
    phrase = _plain(re.sub(r"[_+,/]+", " ", defect)).strip()
    if phrase in _SAYS_NOTHING:
        phrase = ""
    violations = _violations_of_name(phrase)
    if violations:
        phrase = ""
    narrow = _NARROW_KINDS.get(kind, frozenset())
    if not violations & narrow:
        violations |= narrow
    violations = violations or _BROAD_KINDS.get(kind, frozenset())
    if "count" in violations:
        violations |= {"missing", "extra"}
    elif violations & {"missing", "extra"}:
        violations |= {"count"}
    return violations, phrase


def _violations_of_name(phrase: str) -> frozenset[str]:
    # Names such as "color" and "pill type" say that it is wrong only by being a defect's name.
    named = named_violations(phrase) or (named_violations(f"wrong {phrase}") if phrase else set())
    if not named and re.match(r"\d", phrase):  # MVTec LOCO AD's "2_nectarines_1_tangerine"
        return frozenset({"count"})
    return frozenset(named)


def _plain(text: str) -> str:
    """Return text in lower case, in American spelling, with single spaces."""
    return " ".join(text.lower().split()).replace("colour", "color")


def _is_denied(text: str, place: int) -> bool:
    before = re.split(r"[.;:!?]|\bbut\b", text[max(0, place - _REACH) : place])[-1]
    return _DENIED.search(before) is not None
