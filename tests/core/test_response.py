"""The parser: every decision of docs/rewards.md is a row here, with its reason beside it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_reasoner.task.response import Response, parse, read_outcome
from lad_reasoner.task.task import LABELS

THINK = "<think> a pin is missing </think>"

# id, text, answer, well formed. The ids are the rows of docs/rewards.md.
DECISIONS = [
    ("template", f"{THINK}<answer> yes </answer>", "yes", True),
    ("no-spaces", "<think>a</think><answer>no</answer>", "no", True),
    ("newlines", "<think>\nfirst\nsecond\n</think>\n\n<answer>\nyes\n</answer>\n", "yes", True),
    ("outer-whitespace", f" \n{THINK} <answer>no</answer>\t", "no", True),
    ("upper-case", f"{THINK}<answer> YES </answer>", "yes", True),
    ("full-stop", f"{THINK}<answer> yes. </answer>", None, True),
    ("yes-or-no", f"{THINK}<answer> yes or no </answer>", None, True),
    ("sentence", f"{THINK}<answer> yes, a pin is missing </answer>", None, True),
    ("look-alike", f"{THINK}<answer> y\u0435s </answer>", None, True),
    ("long-s", f"{THINK}<answer> ye\u017f </answer>", None, True),
    ("full-width", f"{THINK}<answer> \uff59\uff45\uff53 </answer>", None, True),
    ("zero-width", f"{THINK}<answer> y\u200bes </answer>", None, True),
    ("empty-answer", f"{THINK}<answer>  </answer>", None, False),
    ("empty-reasoning", "<think> \n </think><answer> yes </answer>", "yes", False),
    ("no-reasoning", "<answer> yes </answer>", "yes", False),
    ("no-answer", THINK, None, False),
    ("bare-word", "yes", None, False),
    ("nothing", "", None, False),
    ("text-before", f"Sure! {THINK}<answer> yes </answer>", "yes", False),
    ("text-between", f"{THINK} so <answer> yes </answer>", "yes", False),
    ("text-after", f"{THINK}<answer> yes </answer> I am sure.", "yes", False),
    ("two-answers", f"{THINK}<answer> yes </answer><answer> no </answer>", None, False),
    ("two-equal-answers", f"{THINK}<answer> yes </answer><answer> yes </answer>", None, False),
    ("nested-answers", f"{THINK}<answer><answer> yes </answer></answer>", None, False),
    ("two-reasonings", f"{THINK}{THINK}<answer> yes </answer>", "yes", False),
    ("nested-reasoning", "<think><think> a </think></think><answer> yes </answer>", "yes", False),
    ("answer-in-reasoning", "<think> a <answer> yes </answer> </think>", None, False),
    ("answer-in-and-after", "<think> <answer> yes </answer> </think><answer> no </answer>", None, False),
    ("reasoning-in-answer", "<answer> <think> a </think> yes </answer>", None, False),
    ("wrong-order", f"<answer> yes </answer>{THINK}", "yes", False),
    ("open-answer", f"{THINK}<answer> yes", None, False),
    ("open-reasoning", "<think> a <answer> yes </answer>", None, False),
    ("stray-end", f"{THINK}</think><answer> yes </answer>", "yes", False),
    ("swapped-tags", "</think> a <think></answer> yes <answer>", None, False),
    ("upper-case-tags", "<THINK> a </THINK><ANSWER> yes </ANSWER>", None, False),
    ("tags-with-spaces", "< think > a < /think >< answer > yes < /answer >", None, False),
    ("other-tags", "<think> a <b>bold</b> </think><answer> yes </answer>", "yes", True),
    ("boxed", f"{THINK}\\boxed{{yes}}", None, False),
]


@pytest.mark.parametrize(
    ("text", "answer", "well_formed"), [row[1:] for row in DECISIONS], ids=[r[0] for r in DECISIONS]
)
def test_decision(text: str, answer: str | None, well_formed: bool) -> None:
    response = parse(text)
    assert (response.answer, response.well_formed) == (answer, well_formed)


def test_every_decision_is_documented_and_no_other(repository) -> None:
    page = (repository / "docs" / "rewards.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z-]+)` \|.*\| (yes|no|none) \| ([01]) \|", page, re.MULTILINE)
    assert documented == [(name, answer or "none", str(int(ok))) for name, _, answer, ok in DECISIONS]


def test_reasoning_is_the_stripped_think_block() -> None:
    assert parse(f"{THINK}<answer> yes </answer>").reasoning == "a pin is missing"


PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", " yes ", "no", "\n", " ", "x", "<", ">", "é"]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_total_and_idempotent_under_outer_whitespace(text: str) -> None:
    response = parse(text)
    assert response.answer in {None, *LABELS}
    assert parse(f"\n {text} \t") == response


@given(st.lists(PIECES).map("".join))
def test_well_formed_means_what_a_regular_expression_says(text: str) -> None:
    tag = r"</?(?:think|answer)>"
    inner = rf"(?:(?!{tag})[\s\S])*?\S(?:(?!{tag})[\s\S])*?"
    pattern = rf"\s*<think>{inner}</think>\s*<answer>{inner}</answer>\s*"
    assert parse(text).well_formed == bool(re.fullmatch(pattern, text))


def parse_tag_by_tag(text: str) -> Response:
    """The two rules of docs/rewards.md, said once more without anything that makes it quick."""
    pieces = re.split(r"(</?(?:think|answer)>)", text)
    tags, texts = pieces[1::2], pieces[::2]

    def block(opening: str, closing: str) -> str:
        if tags.count(opening) != 1 or tags.count(closing) != 1:
            return ""
        place = tags.index(opening)
        alone = tags[place + 1 : place + 2] == [closing] and (place == 0 or tags[place - 1].startswith("</"))
        return texts[place + 1].strip() if alone else ""

    reasoning, answer = block("<think>", "</think>"), block("<answer>", "</answer>")
    shaped = tags == ["<think>", "</think>", "<answer>", "</answer>"]
    outside = shaped and (texts[0] + texts[2] + texts[4]).strip()
    label = answer.lower() if answer.lower() in LABELS and len(answer) <= 3 else None
    return Response(reasoning, label, bool(shaped and not outside and reasoning and answer))


@settings(max_examples=2000, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.lists(PIECES).map("".join),
        # A template with whatever in its blocks and around them: most of what is drawn above is no template.
        st.tuples(*[st.lists(PIECES | st.text(), max_size=2).map("".join) for _ in range(5)]).map(
            lambda five: "{}<think>{}</think>{}<answer>{}</answer>{}".format(*five)
        ),
    )
)
def test_the_short_way_through_a_template_gives_what_the_long_way_gives(text: str) -> None:
    assert parse(text) == parse_tag_by_tag(text)
    assert parse(text + " " * 65) == parse(text)  # too long an ending to be remembered
    outcome = read_outcome(text)
    assert (outcome.answer, outcome.well_formed) == (parse(text).answer, parse(text).well_formed)
    assert bool(outcome.reasoning) == bool(parse(text).reasoning)


@pytest.mark.parametrize("before", ["", "before ", "- "])
@pytest.mark.parametrize("ending", ["", " " * 65])
def test_reasoning_that_is_a_dash_stays_one(before: str, ending: str) -> None:
    text = f"{before}<think> - </think><answer>yes</answer>{ending}"
    assert parse(text) == Response("-", "yes", not before) == parse_tag_by_tag(text)


@pytest.mark.parametrize("space", [chr(code) for code in range(0x3001) if chr(code).isspace()])
def test_every_white_space_is_white_space_around_a_block_and_in_it(space: str) -> None:
    text = f"{space}<think>{space}a</think>{space}<answer>yes{space}</answer>{space}"
    assert parse(text) == Response("a", "yes", True) == parse_tag_by_tag(text)
    assert not parse(f"<think>{space}</think><answer>yes</answer>").well_formed


@pytest.mark.timeout(30)  # a quadratic parser would need hours
@pytest.mark.parametrize(
    "unit", ["<think>", "<answer>", "<", "a", " ", "<b>", "<think></think>", "<answer>yes</answer>"]
)
def test_a_megabyte_is_read_in_linear_time(unit: str) -> None:
    many = unit * ((1 << 20) // len(unit))
    assert parse(many).answer is None
    assert not parse(f"<think>{many}").well_formed
    assert not parse(f"{THINK}{many}<answer>yes").well_formed
