"""The reward scores responses with plain floats, and its options fit the run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lad_reasoner.pairs.families import find_family
from lad_reasoner.support.findings import Finding, error, warning
from lad_reasoner.task.classes import right_answer, wrong_answer
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.optional_rewards import OptionalRewards, OptionError
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.reward_probe import ask, probe
from lad_reasoner.training.reward_keys import GROUP_SIZE, read_options

__all__ = ["REWARD_CHECKS", "is_ours"]

KEY: Final = "worker.reward.reward_function"
OPTIONS: Final = "worker.reward.reward_function_kwargs"

#: What a reward must be able to score: a right answer, a wrong one, and responses of an untrained model.
PROBE_GOLD: Final = '{"label": "yes", "category": "probe", "kind": "good", "defect": "good"}'
PROBES: Final = (
    "<think> every part matches </think><answer> {right} </answer>",
    "<think> every part matches </think><answer> {wrong} </answer>",
    "I cannot see any images.",
    "",
    "<think>\nevery part\nmatches\n</think>\n<answer>\n{right}\n</answer>\n",
    "<think>\nevery part\nmatches\n</think>\n<answer>\n{wrong}\n</answer>\n",
)
#: The length of every probe, so that a reward of length treats them alike.
PROBE_TOKENS: Final = 20
#: Indices of the probes with the right and the wrong answer.
RIGHT, WRONG = 0, 1
#: Indices of two equal probes, the second with line breaks.
LINE_BREAKS: Final = ((0, 4), (1, 5))


def is_ours(known: Known) -> bool:
    """Whether the reward file is this package's."""
    return "lad_reasoner/training/easyr1/reward.py" in Path(str(known[KEY])).as_posix()


def check_reward(known: Known) -> Iterator[Finding]:
    """The reward file loads, has the function, and scores gold, wrong and malformed answers as EasyR1 needs."""
    if known[KEY] is None:
        yield error(KEY, "no reward is named, and EasyR1 stops without one", remedy="Set it to path.py:function")
        return
    try:
        options = read_options(known[OPTIONS]) if is_ours(known) else None
    except OptionError:
        return  # reported by check_options
    # The data's own gold answer, because another reward file may use another form.
    gold = known.train.first_gold if known.train and known.train.first_gold else PROBE_GOLD
    answers = _answers(gold)
    rows = [
        {"response": text.format_map(answers), "response_length": PROBE_TOKENS, "ground_truth": gold}
        for text in PROBES
    ]
    # Our own file needs no separate process.
    answer = (ask if options is None else probe)(known[KEY], rows, known[OPTIONS])
    if answer.problem:
        yield error(KEY, answer.problem, remedy=answer.remedy)
        return
    if known.train is not None or options is not None:  # data that is not here may have gold answers of another form
        yield from _check_overall([score["overall"] for score in answer.scores], gold)
    name = known["algorithm.filter_key"]
    if known["algorithm.online_filtering"] and name not in answer.scores[0]:
        yield error("algorithm.filter_key", f"{name!r} is not a key of the reward: {', '.join(answer.scores[0])}")


def check_options(known: Known) -> Iterator[Finding]:
    """The options of our own reward are known, possible, and fit the lengths and the gold answers of the run."""
    if not is_ours(known):
        return
    try:
        optional = read_options(known[OPTIONS])
    except OptionError as fault:
        yield error(f"{OPTIONS}.{fault.name}", fault.problem, remedy="See docs/rewards.md")
        return
    size, n = known[OPTIONS].get(GROUP_SIZE), known["worker.rollout.n"]
    if size is not None and size != n:
        problem = f"{size}, and worker.rollout.n is {n}"
        yield error(f"{OPTIONS}.{GROUP_SIZE}", problem, remedy="Write ${worker.rollout.n}")
    yield from _check_lengths(optional, known["data.max_response_length"])
    if optional.box_weight:
        yield from _check_boxes(optional, known)
    if optional.naming_weight and known.train is not None and (rows := known.train.nameless):
        report = error if rows == known.train.anomalous else warning
        pairs = f"{rows} of {known.train.anomalous} anomalous pairs of data.train_files"
        problem = f"{pairs} have gold answers that name no defect, so they earn nothing by it"
        yield report(f"{OPTIONS}.naming_weight", problem, remedy="Build the file with a recipe that names kinds")


def _check_lengths(optional: OptionalRewards, cut: int) -> Iterator[Finding]:
    """A response can have the lengths in the options."""
    shortest, longest, limit = optional.soft_length_shortest, optional.soft_length_longest, optional.overlong_limit
    if optional.soft_length_weight and shortest > cut:
        yield error(f"{OPTIONS}.soft_length_shortest", f"{shortest} is above data.max_response_length, {cut}")
    elif optional.soft_length_weight and longest >= cut:
        problem = f"{longest} is not below data.max_response_length, {cut}, so no response is too long"
        yield warning(f"{OPTIONS}.soft_length_longest", problem)
    if optional.overlong_weight and limit is not None and limit != cut:
        unreached = limit - optional.buffer >= cut
        problem = f"it is {limit}, but data.max_response_length is {cut}"
        problem += ", so no response reaches the penalty" if unreached else ""
        report = error if unreached else warning
        yield report(f"{OPTIONS}.overlong_limit", problem, remedy="Set it to ${data.max_response_length}")


def _check_boxes(optional: OptionalRewards, known: Known) -> Iterator[Finding]:
    """The data has boxes, and the reward reads them in the frame of the model and of the run's images."""
    if known.train is not None and (rows := known.train.boxless):
        problem = f"{rows} of {known.train.rows} pairs of data.train_files have no boxes"
        yield error(f"{OPTIONS}.box_weight", problem, remedy="Build the file with lad build grpo --boxes MASKS")
    family = find_family(str(known["worker.actor.model.model_path"]))
    if family and family.box_scale != optional.box_scale:
        wanted = f"boxes from 0 to {family.box_scale}" if family.box_scale else "boxes in pixels"
        remedy = f"Set it to {family.box_scale}" if family.box_scale else "Leave it out"
        yield error(f"{OPTIONS}.box_scale", f"models of the family {family.model_type} state {wanted}", remedy=remedy)
    if optional.box_scale is not None:
        return
    for name, key in (("box_smallest", "data.min_pixels"), ("box_largest", "data.max_pixels")):
        if (value := getattr(optional, name)) != known[key]:
            problem = f"it is {value}, but {key} is {known[key]}, so boxes would be read in another frame"
            yield error(f"{OPTIONS}.{name}", problem, remedy=f"Set it to ${{{key}}}")


def _check_overall(overall: list[float], gold: str) -> Iterator[Finding]:
    """The reward distinguishes answers, pays the right one more, and ignores line breaks.

    Nothing is concluded from a gold answer of another form: the reward may rightly give each of our probes the same.
    """
    if not _is_known(gold):
        return
    if len(set(overall)) == 1:
        yield warning(KEY, "it gives the same reward to every probe", remedy="A constant reward trains nothing")
        return
    right, wrong = overall[RIGHT], overall[WRONG]
    if right <= wrong:
        problem = f"it gives {right:g} to the right answer and {wrong:g} to the wrong one (gold: {gold:.80})"
        yield warning(KEY, problem, remedy="The model would learn to answer anything, or wrongly")
    for plain, broken in LINE_BREAKS:
        if overall[broken] < overall[plain]:
            given = f"{overall[broken]:g} instead of {overall[plain]:g}"
            remedy = "Models reason over several lines: strip the text, and let a dot match a newline (re.DOTALL)"
            yield warning(KEY, f"it gives {given} to the same answer with line breaks", remedy=remedy)
            return


def _is_known(gold: str) -> bool:
    """Return whether a gold answer is of our form."""
    try:
        return bool(read_gold(gold))
    except ValueError:
        return False


def _answers(gold: str) -> dict[str, str]:
    """Return the right and a wrong answer to a gold answer; yes and no where it is of another form than ours."""
    truth = read_gold(gold if _is_known(gold) else PROBE_GOLD)
    return {"right": right_answer(truth), "wrong": wrong_answer(truth)}


REWARD_CHECKS: Final[tuple[Check, ...]] = (check_reward, check_options)
