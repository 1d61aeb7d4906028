"""Responses that the reward adapters score in a second, on one core: 1,000 characters each, as models write them.

Run: chrt -r 1 python tests/bench/bench_rewards.py    (chrt keeps other programs off the core; leave it out if refused)
Prints, for each mix of responses, how many a second EasyR1's adapter scores, verl's, and both when every response
goes through the one and the other. Each pass has gold answers that are new objects, as after Ray has carried them. The
best pass and the median are shown: their distance says how busy the machine was.
"""

from __future__ import annotations

import json
import random
import string
import time
from collections.abc import Callable
from typing import Any

from lad_reasoner.task.task import LOCO_CATEGORIES
from lad_reasoner.training.easyr1.reward import compute_score as easyr1_score
from lad_reasoner.training.verl.reward import compute_score as verl_score

#: As long as the longest answers of the paper's runs, and as the requirement says.
CHARACTERS = 1_000
RESPONSES = 20_000
PASSES = 15
#: EasyR1's rollout batch in its examples: 512 prompts; n = 8 samples of each share a gold answer.
BATCH, SAMPLES = 4_096, 8

FORMS = {
    "template": "<think> {} </think><answer> {} </answer>",
    "newlines": "<think>\n{}\n</think>\n\n<answer>\n{}\n</answer>\n",
    "other_tags": "<think> <b>first</b> {} </think><answer> {} </answer>",
    "no_reasoning": "{}<answer> {} </answer>",
    "bare": "{} {}",
}
#: Shares in hundredths: a run that has learned the template, one that is learning it, and what takes longest.
MIXES = {
    "learned": {"template": 90, "newlines": 8, "bare": 2},
    "learning": {"template": 50, "newlines": 20, "no_reasoning": 10, "other_tags": 5, "bare": 15},
    "only other tags": {"other_tags": 100},
}


def draw_rows(mix: dict[str, int], seed: int = 0) -> list[dict[str, Any]]:
    """Return rows as EasyR1 gives them."""
    dice = random.Random(seed)
    rows = []
    for index in range(RESPONSES):
        label = ("yes", "no")[index // SAMPLES % 2]
        gold = {"label": label, "category": list(LOCO_CATEGORIES)[index // SAMPLES % 5], "kind": "logical"}
        form = FORMS[dice.choices(list(mix), list(mix.values()))[0]]
        words = "".join(dice.choices(string.ascii_lowercase + "    ,.", k=CHARACTERS))
        answer = dice.choice(("yes", "no"))
        text = form.format(words[: CHARACTERS - len(form.format("", answer))], answer)
        gold_json = json.dumps(gold | {"defect": f"defect_{index // SAMPLES}"})
        rows.append({"response": text, "response_length": 250, "ground_truth": gold_json})
    return rows


def score_as_easyr1(rows: list[dict[str, Any]]) -> None:
    """Score in batches, as EasyR1's reward manager does."""
    for start in range(0, len(rows), BATCH):
        easyr1_score(rows[start : start + BATCH])


def score_as_verl(rows: list[dict[str, Any]]) -> None:
    """Score one by one, as verl's reward manager does."""
    for row in rows:
        verl_score("loco", row["response"], row["ground_truth"], None)


def seconds_of(score: Callable[[list[dict[str, Any]]], None], rows: list[dict[str, Any]]) -> list[float]:
    """Return the seconds a response of each pass, shortest first."""
    passes = []
    for _ in range(PASSES):
        fresh = [{**row, "ground_truth": row["ground_truth"].encode().decode()} for row in rows]
        start = time.perf_counter()
        score(fresh)
        passes.append((time.perf_counter() - start) / len(rows))
    return sorted(passes)


def main() -> None:
    """Measure and print."""
    result = {}
    for name, mix in MIXES.items():
        rows = draw_rows(mix)
        assert all(len(row["response"]) == CHARACTERS for row in rows)
        easyr1, verl = seconds_of(score_as_easyr1, rows), seconds_of(score_as_verl, rows)
        both = [one + other for one, other in zip(easyr1, verl, strict=True)]
        result[name] = {
            adapter: {"best": round(1 / times[0], -3), "median": round(1 / times[len(times) // 2], -3)}
            for adapter, times in {"easyr1": easyr1, "verl": verl, "through both": both}.items()
        }
    print(json.dumps({"characters": CHARACTERS, "responses_per_second": result}, indent=2))


if __name__ == "__main__":
    main()
