"""What a GRPO run measured, step by step, under one set of names for both trainers.

EasyR1 writes one nested JSON line per step, verl a flat one, and our reward for verl the sums of its parts. The names:

    step                                 1, 2, ...; 0 for the validation before training
    reward                               mean of ``overall``, without the KL penalty
    structure, accuracy, f1              means of the reward's parts; f1 from the confusion shares
    accuracy_<category>, f1_<category>   the same for each category
    soft_length, overlong, naming, box   optional rewards, where their weights are given
    credit                               of answers by class: half for the right family
    unanimous_right, unanimous_wrong     shares of prompts whose responses are all right, or all wrong
    reward_spread                        standard deviation of the reward within a prompt's responses, mean
    response_length                      tokens, mean
    entropy                              of the policy, in nats per token (EasyR1: an estimate, minus log-probability)
    clip_share                           share of tokens whose ratio was clipped
    grad_norm                            of the gradient, before clipping
    kl                                   against the reference model, mean, in nats per token
    seconds                              of the step
    val/<any of the reward's>            validation after the step
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["DIAGNOSTICS", "LOGS", "REWARD_LOG", "VERL_LOG", "Row", "attempts_of", "read_log", "read_metrics"]

Row = dict[str, float]

EASYR1_LOG: Final = "experiment_log.jsonl"
VERL_LOG: Final = "verl.jsonl"
REWARD_LOG: Final = "rewards.jsonl"

#: Larger step numbers are treated as corrupt.
_MOST_STEPS: Final = 1_000_000_000

#: Metrics that show whether a run can still learn, with the titles of their panels.
DIAGNOSTICS: Final[Mapping[str, str]] = {
    "unanimous_right": "prompts answered all right",
    "unanimous_wrong": "prompts answered all wrong",
    "reward_spread": "reward spread within a prompt",
    "entropy": "entropy (nats per token)",
    "clip_share": "share of clipped tokens",
    "grad_norm": "gradient norm",
}

#: The logs of the two trainers themselves.
LOGS: Final = (EASYR1_LOG, VERL_LOG)

#: The trainer's name to ours; the first that a line has is used.
_RENAMED: Final[Mapping[str, str]] = {
    "critic/score/mean": "reward",
    "response_length/mean": "response_length",
    "actor/kl_loss": "kl",
    "actor/kl_penalty": "kl",
    "actor/reward_kl_penalty": "kl",
    "actor/entropy": "entropy",
    "actor/entropy_loss": "entropy",
    "actor/pg_clipfrac": "clip_share",
    "actor/pg_clipfrac_higher": "clip_share",
    "actor/grad_norm": "grad_norm",
    "perf/time_per_step": "seconds",
    "training/rollout_probs_diff_max": "rollout_probs_diff_max",
    "val_response_length/mean": "val/response_length",
}


def attempts_of(run_dir: Path) -> list[Path]:
    """Return the folders of a run's attempts, oldest first: each start, and each resumption, is one."""
    return sorted(path for path in (run_dir / "attempts").glob("*") if path.is_dir())


def read_metrics(run_dir: Path) -> list[Row]:
    """Return a run's metrics, one row per step, in order; the module's docstring names the columns.

    Steps after the checkpoint from which the next attempt resumed are left out: they were trained again. A run started
    without the `easyr1` command has its log in the checkpoint folder itself.
    """
    rows: dict[int, Row] = {}
    for folder in [*attempts_of(run_dir), run_dir]:
        new = {int(row["step"]): row for row in read_log(folder)}
        trained = [step for step, row in new.items() if "reward" in row]
        if trained:
            rows = {step: row for step, row in rows.items() if step < min(trained)}
        for step, row in new.items():
            rows[step] = rows.get(step, {}) | row
    return [rows[step] for step in sorted(rows)]


def read_log(folder: Path) -> list[Row]:
    """Return what one attempt measured, one row per step, in order; EasyR1 logs into the checkpoint folder."""
    rows: defaultdict[int, Row] = defaultdict(dict)
    for step, values in _iter_values(folder):
        rows[step] |= values
    return [{"step": float(step), **_with_f1(rows[step])} for step in sorted(rows)]


def _iter_values(folder: Path) -> Iterator[tuple[int, Row]]:
    """Yield (step, values) from every log of a folder."""
    logged = set()
    for line in _iter_lines(folder / EASYR1_LOG):
        yield line.pop("step"), _renamed(_flat(line))
    for line in _iter_lines(folder / VERL_LOG, "data"):
        logged.add(step := line["step"])
        # Validation by data source is ignored: the reward log has all of it, with counts.
        yield step, _renamed((name, value) for name, value in line["data"].items() if not name.startswith("val-"))
    sums: defaultdict[tuple[int, str], Row] = defaultdict(lambda: defaultdict(float))
    counts: defaultdict[tuple[int, str], Row] = defaultdict(lambda: defaultdict(float))
    for line in _iter_lines(folder / REWARD_LOG, "sums", "counts"):
        place = line["step"], "val/" if line.get("split") == "val" else ""
        for key, total in line["sums"].items():  # a validation set may come in several batches
            count = line["counts"].get(key)
            if isinstance(total, int | float) and isinstance(count, int) and count > 0:
                sums[place][key] += total
                counts[place][key] += count
    for (step, prefix), totals in sums.items():
        if step in logged:  # samples are logged before their step is done
            yield step, {f"{prefix}{_part(key)}": total / counts[step, prefix][key] for key, total in totals.items()}


def _part(key: str) -> str:
    return "reward" if key == "overall" else key


def _renamed(values: Iterable[tuple[str, Any]]) -> Row:
    row: Row = {}
    for name, value in values:
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > sys.float_info.max:
            continue
        if name in _RENAMED:
            row.setdefault(_RENAMED[name], float(value))
        elif name.startswith("reward/"):
            row[_part(name.removeprefix("reward/"))] = float(value)
        elif name.startswith("val/") and name.endswith("_reward"):
            row[f"val/{_part(name.removeprefix('val/').removesuffix('_reward'))}"] = float(value)
    return row


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``a/b`` names of a nested log line."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _with_f1(row: Row) -> Row:
    """Add f1 wherever the confusion shares are; it is absent where it is undefined, without any positive."""
    import numpy as np

    from lad_reasoner.support.confusion import f1

    with_f1 = dict(row)
    for name, true_positives in row.items():
        prefix, tp, ending = name.rpartition("tp") if name.endswith("tp") else name.partition("tp_")
        if not tp or prefix not in {"", "val/"}:
            continue
        ending = f"_{ending}" if ending else ""
        false_positives, false_negatives = (row.get(f"{prefix}{part}{ending}", 0.0) for part in ("fp", "fn"))
        score = float(f1(np.array([true_positives, false_positives, 0.0, false_negatives])))
        if not np.isnan(score):
            with_f1[f"{prefix}f1{ending}"] = score
    return with_f1


def _iter_lines(path: Path, *groups: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log that have a step and the named groups of values.

    Incomplete and foreign lines are skipped: a broken log must not stop a run.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # cut off, and continued by the next attempt
                continue
            if not isinstance(row, dict) or not all(isinstance(row.get(group), dict) for group in groups):
                continue
            step = row.get("step")
            if isinstance(step, int | float) and 0 <= step < _MOST_STEPS:
                yield {**row, "step": int(step)}
