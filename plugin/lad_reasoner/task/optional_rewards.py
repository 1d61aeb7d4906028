"""Rewards in addition to the paper's two: off unless their weight is given. docs/rewards.md explains when to use each.

    soft_length_reward     reasoning of a readable length, neither collapsed nor rambling
    overlong_penalty       DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13)
    defect_naming_reward   the reasoning names what is wrong: LogiCls's task (arXiv 2602.03530)
    consistency_reward     the reasoning asserts a violation if and only if the answer is yes
    box_reward             the boxes in the reasoning are where the anomaly is (`lad_reasoner.task.boxes`)

All but the penalty are paid for right answers only, so that no length and no list of words pays by itself.
Standard library only, as `lad_reasoner.task.rewards`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, Final, Self

from lad_reasoner.task.boxes import box_reward, read_boxes, scale_boxes
from lad_reasoner.task.gold import Gold, read_gold
from lad_reasoner.task.response import Response
from lad_reasoner.task.rewards import accuracy_reward
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label
from lad_reasoner.task.violations import asserts_anomaly, gold_violations, named_violations

__all__ = [
    "MOST_NAMED",
    "OptionError",
    "OptionalRewards",
    "can_be_named",
    "check_weight",
    "consistency_reward",
    "defect_naming_reward",
    "overlong_penalty",
    "soft_length_reward",
]

#: A response that names more than this many distinct violations is guessing. Our choice: an anomaly of MVTec LOCO AD
#: has one violation, rarely two.
MOST_NAMED: Final = 3

#: DAPO's own share: a buffer of 4,096 in 20,480 tokens.
_BUFFER_SHARE: Final = 5


class OptionError(ValueError):
    """A reward option that is unknown, of the wrong type or out of bounds.

    Attributes:
        name: The option.
        problem: What is wrong, as a sentence without its full stop.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"reward option {name}: {problem}")
        self.name, self.problem = name, problem


def soft_length_reward(length: int, *, shortest: int, longest: int) -> float:
    """Return 1.0 between the two lengths, less in proportion below and above, 0.0 from twice the longest on.

    Every length is in tokens.

    Example:
        >>> [soft_length_reward(tokens, shortest=50, longest=300) for tokens in (10, 50, 300, 450, 900)]
        [0.2, 1.0, 1.0, 0.5, 0.0]
    """
    if length < shortest:
        return length / shortest
    return max(0.0, min(1.0, 2.0 - length / longest))


def overlong_penalty(length: int, *, limit: int, buffer: int) -> float:
    """Return 0.0 up to ``limit - buffer`` tokens, then less in proportion, -1.0 from the limit on (DAPO, eq. 13).

    A response that is cut at ``data.max_response_length`` has no answer, and its reward does not show why. The penalty
    grows before the cut. Every length is in tokens.

    Example:
        >>> [overlong_penalty(tokens, limit=1000, buffer=200) for tokens in (800, 900, 1000)]
        [0.0, -0.5, -1.0]
    """
    return min(0.0, max(-1.0, (limit - buffer - length) / buffer))


def defect_naming_reward(reasoning: str, *, label: Label, kind: str, defect: str) -> float:
    """Return the share of the violations that the reasoning names which are the query's, 0.0 if it lists many.

    Nothing is ever paid for a normal query: there, naming a defect is wrong. Label, kind and defect are those of the
    gold answer.

    Example:
        >>> gold = {"label": "yes", "kind": "existence", "defect": "missing_cable"}
        >>> defect_naming_reward("The third cable is absent.", **gold)
        1.0
        >>> defect_naming_reward("A cable is absent and another one is bent.", **gold)
        0.5
        >>> defect_naming_reward("Something is missing, scratched, bent, stained or broken.", **gold)
        0.0
    """
    if label != ANOMALOUS:
        return 0.0
    wanted, phrase = gold_violations(kind, defect)
    named = named_violations(reasoning, also=phrase)
    if not named or len(named - {phrase}) > MOST_NAMED:
        return 0.0
    return len(named & (wanted | {phrase})) / len(named)


def consistency_reward(reasoning: str, answer: Label | None) -> float:
    """Return 1.0 if the reasoning asserts a violation of the query exactly where the answer is yes, else 0.0.

    Example:
        >>> consistency_reward("A washer is missing.", "yes"), consistency_reward("A washer is missing.", "no")
        (1.0, 0.0)
    """
    if answer is None or not reasoning:
        return 0.0
    return float(asserts_anomaly(reasoning) == (answer != NORMAL))


def can_be_named(gold: Gold) -> bool:
    """Return whether a gold answer states what is wrong, by its kind or its defect."""
    return gold.label == ANOMALOUS and any(gold_violations(gold.kind, gold.defect))


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionalRewards:
    """The optional rewards of a run, as ``worker.reward.reward_function_kwargs`` gives them.

    A weight of 0 measures without paying; without a weight a reward is not measured.

    Attributes:
        soft_length_weight: Of `soft_length_reward`.
        soft_length_shortest: In tokens. Our choice: two sentences.
        soft_length_longest: In tokens. Our choice: a paragraph.
        overlong_weight: Of `overlong_penalty`.
        overlong_limit: In tokens; the config's ``data.max_response_length``.
        overlong_buffer: In tokens; a fifth of the limit by default, as in DAPO.
        naming_weight: Of `defect_naming_reward`.
        consistency_weight: Of `consistency_reward`.
        box_weight: Of `lad_reasoner.task.boxes.box_reward`.
        box_scale: Range of the model's box coordinates; by default they are pixels of the image that the model sees.
        box_smallest: The config's ``data.min_pixels``, for boxes in pixels.
        box_largest: The config's ``data.max_pixels``, for boxes in pixels.
    """

    soft_length_weight: float | None = None
    soft_length_shortest: int = 50
    soft_length_longest: int = 300
    overlong_weight: float | None = None
    overlong_limit: int | None = None
    overlong_buffer: int | None = None
    naming_weight: float | None = None
    consistency_weight: float | None = None
    box_weight: float | None = None
    box_scale: int | None = None
    box_smallest: int | None = None
    box_largest: int | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """Return the options, checked.

        Raises:
            OptionError: One is unknown, of the wrong type or out of bounds, or has no effect without another.
        """
        known = [field.name for field in fields(cls)]
        for name, value in options.items():
            if name not in known:
                near = get_close_matches(name, [*known, "structure_weight", "accuracy_weight"], n=1, cutoff=0.0)
                raise OptionError(name, f"there is no such option; the closest is {near[0]}")
            (check_weight if name.endswith("_weight") else _check_tokens)(name, value)
        for name in options:
            weight = f"{name.rpartition('_')[0]}_weight"
            if weight not in options:
                raise OptionError(name, f"it has no effect without {weight}; give both, or neither")
        if "overlong_weight" in options and "overlong_limit" not in options:
            raise OptionError(
                "overlong_limit", "it is missing, and overlong_weight needs it; set it to data.max_response_length"
            )
        read = cls(**options)
        for low, high in (("soft_length_shortest", "soft_length_longest"), ("overlong_buffer", "overlong_limit")):
            lower, upper = getattr(read, low), getattr(read, high)
            if lower and upper and lower > upper:
                raise OptionError(low, f"{lower} is above {high}, {upper}")
        return read

    @property
    def buffer(self) -> int:
        """Tokens over which the overlong penalty grows."""
        return self.overlong_buffer or max(1, (self.overlong_limit or 0) // _BUFFER_SHARE)

    def parts(
        self, response: Response, gold: str, length: int | None, frame: tuple[int, int] = (1, 1)
    ) -> tuple[float, dict[str, float]]:
        """Score one response.

        Args:
            response: The parsed response.
            gold: The gold answer.
            length: Of the response, in tokens; needed by the two rewards of length.
            frame: Width and height in which the response states boxes.

        Returns:
            What to add to the reward, and the parts: ``soft_length``, ``overlong`` and ``consistency`` on every row,
            ``naming`` on the rows of anomalous queries that have a name, ``box`` on those whose gold answer has boxes.
            A part without a weight is absent.

        Raises:
            ValueError: The gold has no label of yes or no, or the length is needed and not known.
        """
        extra, parts = 0.0, {}
        for name, weight, reward in self._iter_parts(response, read_gold(gold), length, frame):
            extra += weight * reward
            parts[name] = reward
        return extra, parts

    def _iter_parts(
        self, response: Response, gold: Gold, length: int | None, frame: tuple[int, int]
    ) -> Iterator[tuple[str, float, float]]:
        """Yield name, weight and reward of each part."""
        right = accuracy_reward(response, gold.label)
        if self.soft_length_weight is not None:
            known = _needed(length, "soft_length_weight")
            reward = soft_length_reward(known, shortest=self.soft_length_shortest, longest=self.soft_length_longest)
            yield "soft_length", self.soft_length_weight, right * reward
        if self.overlong_weight is not None and self.overlong_limit is not None:
            known = _needed(length, "overlong_weight")
            penalty = overlong_penalty(known, limit=self.overlong_limit, buffer=self.buffer)
            yield "overlong", self.overlong_weight, penalty
        if self.naming_weight is not None and can_be_named(gold):
            reward = defect_naming_reward(response.reasoning, label=ANOMALOUS, kind=gold.kind, defect=gold.defect)
            yield "naming", self.naming_weight, right * reward
        if self.consistency_weight is not None:
            reward = consistency_reward(response.reasoning, response.answer)
            yield "consistency", self.consistency_weight, right * reward
        if self.box_weight is not None and gold.boxes is not None:
            stated = scale_boxes(read_boxes(response.reasoning), frame)
            yield "box", self.box_weight, right * box_reward(stated, gold.boxes)


def _needed(length: int | None, option: str) -> int:
    if length is None:
        raise ValueError(f"{option} needs the length of the response in tokens, which only EasyR1 and `easyr1` give")
    return length


def check_weight(name: str, value: object) -> None:
    """Check a weight.

    Raises:
        OptionError: It is not a finite number from 0 on.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value < 0:
        raise OptionError(name, f"{value!r} is not a number from 0 on")


def _check_tokens(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(name, f"{value!r} is not a whole number{' of tokens' * ('box' not in name)}, at least 1")
