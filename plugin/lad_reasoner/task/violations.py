"""What is wrong with a query, as words: the violations that a text asserts, and those that a gold answer holds.

The task is that of Logical Anomaly Classification (LogiCls, arXiv 2602.03530): to name the violated rule, not only
that one is violated. The words were collected from the defect names of MVTec AD, VisA and MVTec LOCO AD and from how
models describe them. They are a list, not an understanding; docs/rationales.md shows what it reads and what not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

__all__ = [
    "LOGICAL_VIOLATIONS",
    "NARROW_KINDS",
    "NUMBER_WORDS",
    "PARTS",
    "SURFACE_VIOLATIONS",
    "VIOLATIONS",
    "Assertion",
    "asserts_anomaly",
    "find_assertions",
    "gold_violations",
    "named_violations",
]

#: Nouns of parts, in the singular: what may be missing or one too many.
PARTS: Final = (
    "almond banana bolt bottle cable capsule cereal clamp chip component connector cap divider fruit granola icon "
    "item juice label leg lever liquid nectarine nut object part peach piece pill pin plug pushpin screw seal "
    "separator splice sticker tangerine terminal topping transistor washer wire"
)
_PART: Final = rf"(?:{'|'.join(PARTS.split())})s?"
#: The cardinal number words, from zero.
NUMBER_WORDS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight"),
    *("nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
)
_NUMBERS: Final = {
    **{word: number for number, word in enumerate(NUMBER_WORDS)},
    "none": 0,
    "a": 1,
    "an": 1,
    "single": 1,
    "1st": 1,
    "second": 2,
    "double": 2,
    "pair": 2,
    "third": 3,
    "fourth": 4,
}
_NUMBER: Final = r"(?:\d{1,3}|(?:" + "|".join(word for word in _NUMBERS if word not in {"a", "an", "none"}) + r")\b)"
_COLOR: Final = "(?:black|blue|brown|gr[ae]y|green|orange|pink|purple|red|transparent|violet|white|yellow)"
_OFF: Final = "(?:abnormal|different|faulty|inconsistent|incorrect|mismatched|unexpected|unknown|unusual|wrong)"
_FEW: Final = r"(?:\w++ ){0,2}"
#: Not "no extra washer" and "no broken pin": what is denied there is a fault, not the part.
_SOUND: Final = (
    r"(?!(?:\w+ ){0,2}(?:addition|bent|broken|contamin|crack|damag|defect|differ|dirt|duplic|extra|fault|foreign|"
    r"incorrect|loose|mis|more|other|scratch|second|surplus|un|wrong))"
)
_NOT: Final = r"(?:not|\w{2,6}n't|cannot)"
#: That two things do not agree. The denial of agreement is part of the assertion.
_DIFFERS: Final = (
    rf"{_FEW}(?:differs?|different|incorrect|mismatch(?:es|ed)?|wrong|changed|off|deviates?|"
    rf"{_NOT} (?:\w++ )?(?:match|agree|correspond|correct|equal|right|(?:the )?same))"
)
_BE: Final = r"(?:is|are|was|were|be|been|can be|looks?|appears?|seems?)"
_SEEN: Final = r"(?:visible|present|there|seen|found|detected|included|inside|in place|attached|located)"
_FAR: Final = "(?:clearly|considerably|far|markedly|much|noticeably|significantly|slightly|somewhat|too|very|visibly)"

#: Violation, and the words for it: regular expressions on lower-case text with single spaces, each of whole words.
#: Of two that begin at one place the first counts. Words that also describe what is right ("the colors match") are
#: here only where they deny it.
VIOLATIONS: Final[dict[str, str]] = {
    "extra": rf"extra|additional|surplus|superfluous|too many|duplicated?|(?:one|two|three) (?:\w++ )?more\b(?= than)|"
    rf"(?:one|two|three) too many|(?:two|three|four|[2-4]) {_PART} share|(?:\w++ )?more {_FEW}{_PART}(?= than)|"
    rf"unexpected {_FEW}{_PART}|(?:(?:is|are|was|were) )?(?:{_NOT} (?:\w++ )?(?:in|on|part of)|absent (?:in|from)|"
    rf"missing (?:in|from)) the reference",
    "level": rf"{_FEW}(?:level|filling|volume) {_FEW}(?:lower|higher|low|high|{_DIFFERS})|"
    rf"(?:lower|higher|{_OFF}) (?:fill(?:ing)?|liquid|juice) level|(?:under|over)-?fill\w*|(?:over|under)flow\w*|"
    rf"too (?:much|little)|not enough|(?:filled|full) {_FEW}(?:less|more|higher|lower)|"
    rf"(?:less|more) (?:full|juice|liquid|cereals?|filled)|(?:level|juice|liquid) (?:{_NOT} |do(?:es)? {_NOT} |"
    rf"fails? to )reach|{_NOT} (?:\w++ )?(?:filled|full)|not as full",
    "missing": rf"missing|absent|absence|lack(?:s|ing)?(?= {_SOUND}|(?! ))|omitted|incomplete|unoccupied|"
    rf"misses {_FEW}{_PART}|(?:is|are) (?:vacant|short of)|(?:has|have) (?:fallen|come|peeled) off|"
    rf"(?:no longer|{_NOT}) (?:be )?(?:\w++ )?{_SEEN}|(?:is|are|has|have) (?:gone|disappeared|been removed)|nowhere|"
    rf"(?:has|have|shows?|contains?|holds?) (?:none|nothing)|none there|nothing there|"
    rf"(?:no|without(?: an?| any| the)?|lacks?) {_SOUND}{_FEW}{_PART}(?= ?$|"
    rf",? (?:in|on|at|between|inside|next|to|where|here)\b| (?:\w++ )?{_SEEN}\b|"
    rf" {_BE} (?:\w++ )?(?:{_SEEN}|in|on|at)\b)|empty (?:\w++ )?(?:bottle|box|bag|compartment|slot|tray|side)|"
    rf"(?:is|are|left|remains?|stays?) (?:\w++ )?empty|(?:one|two|three) (?:\w++ )?(?:fewer|less)\b|fewer|too few|"
    rf"less {_FEW}{_PART}(?= than)",
    "count": rf"{_OFF} {_FEW}(?:number|count|amount|quantity|ratio)s?|(?:number|count|amount|quantity|"
    rf"ratio)s? (?:of (?:\w++ ){{1,3}})?{_DIFFERS}",
    "color": rf"{_OFF} {_FEW}(?:color|hue)s?|colou?rs? (?:of (?:\w++ ){{1,3}})?{_DIFFERS}|discolor\w*|recolor\w*|"
    rf"stain\w*|faded|tinted|{_COLOR} (?:instead of|rather than|and not|not)|"
    rf"(?:darker|paler|lighter|redder|greener) than",
    "swapped": r"swap\w*|exchanged|interchanged|switched|mixed(?: up)?|(?:wrong|reversed?|different) order|"
    r"traded places",
    "length": rf"{_FAR} (?:long|short)(?:er)?|(?:long|short)er than|(?:is|are|looks?|seems?) (?:long|short)er|"
    rf"not as (?:long|short) as|lengths? (?:of (?:\w++ ){{1,3}})?{_DIFFERS}|{_OFF} length",
    "place": rf"misplaced|displaced|mispositioned|misaligned|shifted|flip\w*|rotated|upside[- ]down|tilted|"
    rf"off-?center|out of (?:place|position|line)|{_OFF} {_FEW}(?:place|position|location|slot|orientation|direction|"
    rf"compartment)s?|{_NOT} (?:\w++ )?where (?:it|they) (?:should|belongs?)|too (?:far|high up|low down)|"
    rf"(?:no longer|{_NOT}) (?:\w++ )?(?:centered|aligned|plugged|connected|upright|straight)|unplugged|disconnected|"
    rf"open lever|lever is open|wrong(?:ly)? (?:placed|side)",
    "type": rf"{_OFF} {_FEW}(?:type|kind|model|variant)s?|(?:type|kind)s? (?:of (?:\w++ ){{1,3}})?{_DIFFERS}|unknown|"
    rf"replaced (?:by|with)|substituted|(?:label|sticker|icon) (?:do(?:es)? )?{_NOT} (?:match|fit|correspond)|"
    rf"(?:another|different|incorrect|wrong) (?:\w++ )?(?:{_PART}|products?)",
    "bent": r"bent|bend(?:s|ing)?|twisted|crooked|kinked|warped|mis-?shapen|misshape|deform\w*|distort\w*|squeez\w*|"
    r"crush\w*|dent(?:s|ed)?|fold(?:s|ed)?|manipulated|curved",
    "broken": r"broken|breaks?|breakage|crack\w*|fractur\w*|chipped|damag\w*|split|torn|ripped|shattered|snapped|"
    r"burst",
    "cut": r"cut(?! off by)|sever(?:s|ed)|sliced|frayed",
    "scratch": r"scratch\w*|scuff\w*|scrap(?:e|es|ed)|abrasions?|abraded",
    "hole": r"(?:dark|small|tiny|visible) holes?|(?:there is|there's|has|have|shows?) (?:a )?(?:\w++ )?holes?(?! for)|"
    r"pok(?:e|es|ed)|punctur\w*|pierced|perforat\w*",
    "contamination": r"contamina\w*|dirt\w*|debris|foreign|residue|soiled|smear\w*|spots?",
    "print": rf"(?:{_OFF}|blurred|illegible) {_FEW}(?:imprint|print|text|lettering|marking)s?|misprint\w*|illegible|"
    rf"unreadable|smudged",
}

#: Violations of two families: what damages a surface, and what breaks a rule of the product.
SURFACE_VIOLATIONS: Final = frozenset({"bent", "broken", "cut", "scratch", "hole", "contamination", "print"})
LOGICAL_VIOLATIONS: Final = frozenset(
    {"missing", "extra", "count", "color", "swapped", "type", "length", "place", "level"}
)

#: Kinds of anomalies (`lad_reasoner.task.task.KINDS`) whose name tells the violation.
NARROW_KINDS: Final[dict[str, frozenset[str]]] = {
    "number": frozenset({"missing", "extra", "count"}),
    "color": frozenset({"color"}),
    "existence": frozenset({"missing", "extra"}),
}

#: Kinds that only tell the sort of violation.
_BROAD_KINDS: Final[dict[str, frozenset[str]]] = {
    "logical": LOGICAL_VIOLATIONS,
    "structural": SURFACE_VIOLATIONS | {"color", "place"},
    "functional": frozenset({"swapped", "type", "place", "bent", "broken"}),
    "appearance": SURFACE_VIOLATIONS,
}

#: Names of defects without meaning.
_SAYS_NOTHING: Final = frozenset({"", "anomaly", "bad", "combined", "defect", "defective", "good", "unnamed"})

#: The normal counts behind MVTec LOCO AD's names such as "0_nectarines_3_tangerines".
_NORMAL_FRUITS: Final = {"nectarine": 1, "tangerine": 2}

_ANOMALY: Final = r"anomal\w+|defects?|defective|abnormal\w*|irregular\w*|faulty|flaw\w*"
_ANY: Final = re.compile(
    rf"\b(?:{'|'.join(f'(?P<{name}>{words})' for name, words in VIOLATIONS.items())}|(?P<anomaly>{_ANOMALY}))(?!\w)"
)

#: Forms that are rewritten before a text is split: a list's "scratches: none", "two nuts; the reference has three",
#: ", the reference two", "two different kinds" (that is variety), "not without scratches".
_REWRITTEN: Final = (
    (re.compile(r"[^.;:\n]{1,60}:\s*(?:none|no|0|zero|nothing|n/a)\s*(?=[.;,\n]|$)"), ""),
    (re.compile(r";\s(?=(?:the (?:query|reference)|there should|expected)\b)"), " but "),
    (re.compile(rf", (?:and )?the reference (?:only |just )?(?={_NUMBER})"), " but the reference has "),
    (re.compile(r"\b(two|three|four|several|various) different (?=kinds|types)"), r"\1 "),
    (re.compile(r"\bnot without (?!an? doubt|doubt)"), "with "),
)

_SENTENCE: Final = re.compile(r"[;:]\s|[.!]+(?:\s|$)|(?<=\?)\s|\n")
_VERB: Final = (
    r"(?:is|are|was|were|has|have|shows?|lacks?|misses|lies|sits|runs?|looks?|appears?|seems?|contains?|matche?s?|"
    r"holds?|sticks?)"
)
_CLAUSE: Final = re.compile(
    rf",? (?:but|however|although|though|while|whereas|yet|except|because|since|so)\b,? |"
    rf"(?:, (?:and |so )?| and )(?=(?:the|a|an|it|there|its|one|two|three|this|that|all|both|no|nothing|"
    rf"none) (?:[\w-]+ ){{0,4}}?{_VERB}\b)|^(?:while|although|whereas|though) "
)
#: Before a violation, in its clause: it is denied, supposed, or looked for.
_DENIED: Final = re.compile(
    r"\b(?:no(?! longer| doubt| question)|not(?! only)|never|without(?! (?:a |any )?(?:doubt|question))|neither|nor|"
    r"none|nothing|free|cannot|hardly|barely|scarcely|zero|unlikely|doubt(?:s|ed)?(?! (?:an? |the ))|"
    r"lack(?:s|ing)? (?:of )?any|instead of|rather than|\w{2,6}n't|might|may|could|would|possibly|perhaps|maybe|"
    r"potential(?:ly)?|if|whether|unless|at first (?:glance|sight)|(?:check|look|inspect|search|examin|test)(?:s|ed|"
    r"ing)? (?:[\w-]+ ){0,4}for|expect(?:ed)? to)\b(?! longer)"
)
#: After a violation, in its clause: it is not there, or it is no fault.
_RETRACTED: Final = re.compile(
    rf"^(?:[\w-]+ ){{0,4}}?(?:{_BE} )?(?:{_NOT} (?:\w+ )?(?:{_SEEN}|observed|the case)|absent|ruled out|excluded|"
    rf"in neither|would (?:be|count as) an? (?:anomaly|defect|fault|problem))\b|^-?free\b"
)
#: In the sentence: what was mentioned before is denied, or explained away.
_EXPLAINED: Final = re.compile(
    r"\b(?:none of (?:these|them|those|which|this)|only an? (?:reflection|shadow|artifact)|not the case|"
    r"normal (?:variation|tolerance)s?|within (?:the )?(?:normal|tolerance|usual)|acceptable|harmless|is normal|"
    r"are normal|not an? (?:anomaly|defect)|negligible|does not count)\b"
)
#: In the clause: both images agree.
_AGREES: Final = re.compile(
    r"(?<!not )(?<!not the )\b(?:same|identical|equal|as in (?:both|the)|in both|just like|like (?:in )?the reference|"
    r"also in the reference|as (?:does|do|has|is|are|did) the reference|both (?:images|pictures|photos) (?:show|have|"
    r"contain)|as expected|as usual|as intended|as designed|by design|on purpose|part of the (?:design|pattern|print)|"
    r"(?:like|exactly as|just as) (?:it|they) should|(?:is|are|looks?) (?:natural|fine|intended|intentional)|"
    r"(?:is|are|was|were|turn(?:s|ed)? out to be|due to|caused by) (?:just |only |merely )?(?:an? |"
    r"the )?(?:reflections?|shadows?|artifacts?|glare|lighting))\b"
)
_REFERENCE: Final = re.compile(r"^(?:and )?(?:in )?(?:the|a) (?:\w+ )?reference\b(?! (?:image )?,)")
_SECTION: Final = 600  # characters of one sentence that are read together, so that time grows with the length alone


class Assertion(NamedTuple):
    """A violation that a text asserts of the query, and the sentence that asserts it."""

    violation: str
    sentence: str


def find_assertions(text: str) -> Iterator[Assertion]:
    """Yield the violations that a text asserts; ``anomaly`` for one without a name.

    What is denied ("no part is missing"), supposed ("might be bent"), about the reference, or explained away
    ("within normal variation") is not asserted.

    Example:
        >>> [found.violation for found in find_assertions("Nothing is bent. There is only one nut instead of two.")]
        ['missing']
    """
    plain = text.lower().replace("colour", "color").replace("\u2019", "'")
    for pattern, words in _REWRITTEN:
        plain = pattern.sub(words, plain)
    for whole in _SENTENCE.split(plain):
        words = " ".join(whole.split())
        for start in range(0, len(words), _SECTION):
            yield from _assertions_of(words[start : start + _SECTION])


def _assertions_of(sentence: str) -> Iterator[Assertion]:
    if sentence.endswith("?"):
        return
    explained = _EXPLAINED.search(sentence)
    clauses = [clause for clause in _CLAUSE.split(sentence) if clause]
    place = 0
    for clause in clauses:
        place = sentence.index(clause, place)
        if (explained and explained.end() >= place) or _AGREES.search(clause):
            continue
        for match in _ANY.finditer(clause):
            if not _is_denied(clause, match):
                yield Assertion(match.lastgroup or "", sentence)
    if not explained and not any(map(_AGREES.search, clauses)) and (counted := _compare_counts(sentence, clauses)):
        yield Assertion(counted, sentence)


def _is_denied(clause: str, match: re.Match[str]) -> bool:
    if _DENIED.search(clause, 0, match.start()) or (
        _REFERENCE.search(clause) and match.lastgroup != "extra" and "than" not in clause
    ):
        return True
    earlier = _ANY.search(clause, 0, match.start())
    if match.lastgroup == "missing" and earlier and earlier.lastgroup != "missing":
        return _RETRACTED.search(match[0]) is not None  # "scratches are not visible"
    return _RETRACTED.search(clause[match.end() :].lstrip()) is not None


_INSTEAD: Final = re.compile(
    rf"(?P<query>{_NUMBER})(?: [\w-]+){{0,5}}?,? (?:instead of|rather than|and not|not|where (?:only|just)|"
    rf"(?:when |where |but |and )?there should be)(?: the| only| just)?(?: \w+)? "
    rf"(?P<reference>{_NUMBER})(?: {_PART}\b)?"
)
#: The same with the right number first: "instead of two screws there is one", "expected two washers, found three".
_SHOULD: Final = re.compile(
    rf"(?:instead of|rather than|expected|should be)(?: the)? (?P<reference>{_NUMBER})(?: [\w-]+){{0,3}}?,? "
    rf"(?:but )?(?:found|got|saw|counted|it (?:has|holds)|there (?:is|are))(?: only| just)? (?P<query>{_NUMBER})"
)
_COUNTED: Final = re.compile(rf"\b{_PART}\b")
_HAS: Final = re.compile(rf"({_NUMBER})(?:$| (?=(?:[\w-]+ ){{0,3}}?{_PART}\b|in |there|of |(?:is|are|were) expected))")
_ONLY: Final = re.compile(rf"\b(?:only|just) (?:a )?({_NUMBER})(?: [\w-]+)?? {_PART}\b")


def _compare_counts(sentence: str, clauses: list[str]) -> str | None:
    """Return what two numbers say, one of the query and one of the reference: missing, extra, or nothing."""
    for pattern in (_INSTEAD, _SHOULD):
        if (found := pattern.search(sentence)) and _COUNTED.search(found[0]):
            return _difference(found["query"], found["reference"])
    theirs = [_HAS.search(clause) for clause in clauses if "reference" in clause or "expected" in clause]
    ours = [_HAS.search(clause) for clause in clauses if "reference" not in clause and "expected" not in clause]
    first, second = next(filter(None, ours), None), next(filter(None, theirs), None)
    if first and second:
        return _difference(first[1], second[1])
    if len(clauses) == 1 and _ONLY.search(sentence) and "reference" not in sentence and not _DENIED.search(sentence):
        return "missing"
    return None


def _difference(query: str, reference: str) -> str | None:
    ours, theirs = (int(word) if word.isdigit() else _NUMBERS[word] for word in (query, reference))
    return None if ours == theirs else "missing" if ours < theirs else "extra"


def named_violations(text: str, *, also: str = "") -> set[str]:
    """Return the names of the violations that a text asserts.

    Args:
        text: Reasoning, in English.
        also: A phrase that counts as a violation of its own, such as a defect's name.

    Example:
        >>> sorted(named_violations("No scratches, but a screw is missing and the cable has a wrong colour."))
        ['color', 'missing']
    """
    found = {assertion.violation for assertion in find_assertions(text)} - {"anomaly"}
    if also and re.search(
        rf"\b{re.escape(also)}\b", plain := " ".join(text.lower().replace("colour", "color").split())
    ):
        before = plain[: plain.index(also)].rpartition(".")[2][-_SECTION:]
        if not _DENIED.search(before):
            found.add(also)
    return found


def asserts_anomaly(text: str) -> bool:
    """Return whether a text asserts any violation of the query, named or not."""
    return next(find_assertions(text), None) is not None


@lru_cache(maxsize=4096)  # a data set has some dozens of kinds with their defects
def gold_violations(kind: str, defect: str) -> tuple[frozenset[str], str]:
    """Return the violations of a gold answer, and its defect's name where only the name tells what is wrong.

    The defect's name decides: ``missing_cable`` is missing, neither extra nor a wrong count. The kind adds its own
    violations where the name has none of them (``cable_swap`` of kind "color" is swapped or a color), and a broad kind
    (logical, functional, ...) where the name has none at all.

    Args:
        kind: As in the pair parquet; an unknown one adds nothing.
        defect: As in the pair parquet; several are joined by a plus or a comma.

    Returns:
        The violations, if any name has one; and the defect's name as a phrase, empty where the violations name it or
        where it has no meaning ("combined").

    Example:
        >>> violations, phrase = gold_violations("existence", "missing_cable")
        >>> sorted(violations), phrase
        (['missing'], '')
        >>> gold_violations("", "thread_side")
        (frozenset(), 'thread side')
    """
    phrase = " ".join(re.sub(r"[_+,/]+", " ", defect.lower().replace("colour", "color")).split())
    if phrase in _SAYS_NOTHING:
        phrase = ""
    violations = _violations_of_name(phrase)
    phrase = "" if violations else phrase
    narrow = NARROW_KINDS.get(kind, frozenset())
    if not violations & narrow:
        violations |= narrow
    return violations or _BROAD_KINDS.get(kind, frozenset()), phrase


def _violations_of_name(phrase: str) -> frozenset[str]:
    fruits = re.findall(r"(\d) (nectarine|tangerine)s?", phrase)
    counts = {int(number) - _NORMAL_FRUITS[fruit] for number, fruit in fruits}
    if counts:
        steps = {"missing": any(count < 0 for count in counts), "extra": any(count > 0 for count in counts)}
        return frozenset(name for name, found in steps.items() if found) or frozenset({"count"})
    if phrase in {"empty bottle", "wrong ratio"}:
        return frozenset({"missing", "level"} if phrase == "empty bottle" else {"count"})
    # Names such as "color" and "pill type" say that it is wrong only by being a defect's name.
    spellings = (phrase, f"wrong {phrase}") if phrase else ()
    found = ({match.lastgroup or "" for match in _ANY.finditer(text)} - {"anomaly", ""} for text in spellings)
    return frozenset(next(filter(None, found), ()))
