"""The reward: it scores what models say, with plain floats, and its options fit the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import LadError
from lad_reasoner.support.findings import Finding, error, warning
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.optional_rewards import OptionalRewards, OptionError
from lad_reasoner.task.task import ANOMALOUS
from lad_reasoner.training.easyr1.reward_file import RewardFile, load_reward
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.reward_keys import read_options

__all__ = ["REWARD_CHECKS", "is_ours"]

KEY: Final = "worker.reward.reward_function"
OPTIONS: Final = "worker.reward.reward_function_kwargs"

#: What a reward must be able to score: a right answer, a wrong one, and what a model says before it has learned.
PROBE_GOLD: Final = '{"label": "yes", "category": "probe", "kind": "good", "defect": "good"}'
PROBES: Final = (
    "<think> every part matches </think><answer> yes </answer>",
    "<think> every part matches </think><answer> no </answer>",
    "I cannot see any images.",
    "",
    "<think>\nevery part\nmatches\n</think>\n<answer>\nyes\n</answer>\n",
    "<think>\nevery part\nmatches\n</think>\n<answer>\nno\n</answer>\n",
)
#: Of every probe, so that a reward of length does not tell them apart.
PROBE_TOKENS: Final = 20
#: Places of the probes that say yes and no.
SAYS_YES, SAYS_NO = 0, 1
#: Places of two probes that say the same, the second with line breaks.
LINE_BREAKS: Final = ((0, 4), (1, 5))


def is_ours(known: Known) -> bool:
    """Whether the reward file is this package's."""
    return "lad_reasoner/training/easyr1/reward.py" in Path(str(known[KEY])).as_posix()


def check_reward(known: Known) -> Iterator[Finding]:
    """The reward file loads, has the function, and scores gold, wrong and malformed answers as EasyR1 needs."""
    if known[KEY] is None:
        yield error(KEY, "none", expected="path.py:function", remedy="EasyR1 stops without one")
        return
    try:
        reward = load_reward(known[KEY])
        if is_ours(known):
            read_options(known[OPTIONS])
    except LadError as fault:
        yield error(KEY, f"{fault.where}: {fault.found}", expected=fault.expected, remedy=fault.remedy)
    except OptionError:
        return  # said by check_options
    else:
        yield from _check_scores(known, reward)


def check_options(known: Known) -> Iterator[Finding]:
    """The options of our own reward are known, possible, and fit the lengths and the gold answers of the run."""
    if not is_ours(known):
        return
    try:
        optional = read_options(known[OPTIONS])
    except OptionError as fault:
        yield error(f"{OPTIONS}.{fault.name}", fault.found, expected=fault.expected, remedy="see docs/rewards.md")
        return
    yield from _check_lengths(optional, known["data.max_response_length"])
    if optional.naming_weight and known.train is not None and (rows := known.train.nameless):
        anomalous = known.train.labels.get(ANOMALOUS, 0)
        report = error if rows == anomalous else warning
        yield report(
            f"{OPTIONS}.naming_weight",
            f"{rows} of {anomalous} anomalous pairs of data.train_files whose gold answer names no defect",
            expected="kind or defect in the gold answer",
            remedy="they earn nothing by it: build the file with a recipe that names kinds",
        )


def _check_lengths(optional: OptionalRewards, cut: int) -> Iterator[Finding]:
    """Lengths that the rewards speak of are ones that a response can have."""
    if optional.soft_length_weight and optional.soft_length_shortest > cut:
        yield error(
            f"{OPTIONS}.soft_length_shortest",
            str(optional.soft_length_shortest),
            expected=f"at most data.max_response_length, {cut}",
        )
    elif optional.soft_length_weight and optional.soft_length_longest >= cut:
        yield warning(
            f"{OPTIONS}.soft_length_longest",
            str(optional.soft_length_longest),
            expected=f"less than data.max_response_length, {cut}",
            remedy="no response would ever be too long",
        )
    limit = optional.overlong_limit
    if not optional.overlong_weight or limit is None or limit == cut:
        return
    report = error if limit - optional.buffer >= cut else warning
    yield report(
        f"{OPTIONS}.overlong_limit",
        str(limit),
        expected=f"data.max_response_length, {cut}",
        remedy="no response would reach the penalty"
        if limit - optional.buffer >= cut
        else "write overlong_limit: ${data.max_response_length}",
    )


def _check_scores(known: Known, reward: RewardFile) -> Iterator[Finding]:
    # The data's own gold answer, because another reward file may read another form.
    gold = known.train.first_gold if known.train and known.train.first_gold else PROBE_GOLD
    rows = [{"response": text, "response_length": PROBE_TOKENS, "ground_truth": gold} for text in PROBES]
    try:
        scores = reward.score(rows, **known[OPTIONS])
    except Exception as fault:
        yield error(
            KEY,
            f"{type(fault).__name__} on a probe: {fault}",
            remedy="a reward must score any text; see worker.reward.reward_function_kwargs for unknown options",
        )
        return
    if len(scores) != len(rows):
        yield error(
            KEY,
            f"{len(scores)} scores for {len(rows)} responses",
            remedy="return one dict a row: EasyR1 would silently give the others a reward of zero",
        )
    elif (unfit := next(filter(None, map(_unfit, scores)), None)) is not None:
        yield unfit
    else:
        yield from _check_overall([float(score["overall"]) for score in scores], gold)
        name = known["algorithm.filter_key"]
        if known["algorithm.online_filtering"] and name not in scores[0]:
            yield error("algorithm.filter_key", repr(name), expected=f"a key of the reward: {', '.join(scores[0])}")


def _unfit(score: object) -> Finding | None:
    """Return what makes a score one that EasyR1 cannot use, if anything."""
    if not isinstance(score, dict) or "overall" not in score:
        return error(KEY, f"a score {score!r:.80}", expected="a dict with overall")
    for name, value in score.items():
        if type(value) not in {float, int}:
            kind = type(value).__name__
            return error(KEY, f"{name} of type {kind}", expected="plain floats", remedy="use float(value)")
        if not math.isfinite(value):
            return error(KEY, f"{name} of {value}", expected="a finite number", remedy="it would poison the weights")
        if "/" in name:
            return error(KEY, f"a slash in the key {name}", remedy="EasyR1's log would nest it: use an underscore")
    return None


def _check_overall(overall: list[float], gold: str) -> Iterator[Finding]:
    """The reward tells answers apart, pays the right one more, and does not mind line breaks."""
    if len(set(overall)) == 1:
        yield warning(KEY, "the same reward for every probe", remedy="a constant reward trains nothing")
        return
    right, wrong = (SAYS_YES, SAYS_NO) if _label(gold) == ANOMALOUS else (SAYS_NO, SAYS_YES)
    if _label(gold) and overall[right] <= overall[wrong]:
        yield warning(
            KEY,
            f"{overall[right]:g} for the right answer and {overall[wrong]:g} for the wrong one (gold: {gold:.80})",
            remedy="the model would learn to answer anything, or wrongly",
        )
    for plain, broken in LINE_BREAKS:
        if overall[broken] < overall[plain]:
            yield warning(
                KEY,
                f"{overall[broken]:g} instead of {overall[plain]:g} for the same answer with line breaks",
                remedy="models reason over several lines: strip the text, and let a dot match a newline (re.DOTALL)",
            )
            return


def _label(gold: str) -> str:
    """Return the label of a gold answer; empty where it is of another form than ours."""
    try:
        return read_gold(gold).label
    except ValueError:
        return ""


REWARD_CHECKS: Final[tuple[Callable[[Known], Iterator[Finding]], ...]] = (check_reward, check_options)
