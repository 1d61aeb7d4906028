"""Try a user's reward file in a separate process: ``python -m ... REQUEST.json ANSWER.json``.

A reward file is foreign code. It may exit Python, never return, or print; none of these may end or block the check.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from lad_reasoner.support.errors import LadError
from lad_reasoner.training.easyr1.reward_file import load_reward

__all__ = ["TIME_LIMIT", "ProbeResult", "ask", "probe"]

#: Seconds for loading the file and scoring the probes; importing torch alone takes several.
TIME_LIMIT: Final = 60


class ProbeResult(BaseModel):
    """The outcome of a probe.

    Attributes:
        problem: Why the reward cannot be used; empty if it can.
        remedy: What to do about it.
        scores: One score per response, if there is no problem.
    """

    model_config = ConfigDict(frozen=True)

    problem: str = ""
    remedy: str = ""
    scores: list[dict[str, float]] = []


def ask(reward: str, rows: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> ProbeResult:
    """Probe a reward in a child process that is given `TIME_LIMIT` seconds."""
    with tempfile.TemporaryDirectory(prefix="lad-reward-") as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked = {"reward": reward, "rows": list(rows), "kwargs": dict(kwargs)}
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", __name__, str(request), str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIME_LIMIT, check=False)
        except subprocess.TimeoutExpired:
            problem = f"it did not score {len(rows)} responses within {TIME_LIMIT} s"
            return ProbeResult(problem=problem, remedy="A reward must not loop or wait for ever")
        if not answer.is_file():
            problem = f"it ended Python with exit code {done.returncode}"
            return ProbeResult(problem=problem, remedy="A reward must return scores; remove sys.exit and the like")
        return ProbeResult.model_validate_json(answer.read_bytes())


def probe(reward: str, rows: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> ProbeResult:
    """Load a reward, score the rows, and judge the scores as EasyR1 will use them."""
    try:
        scores = load_reward(reward).score(rows, **kwargs)
    except LadError as fault:
        problem = f"{fault.where}: {fault.problem}" if fault.where else fault.problem
        return ProbeResult(problem=problem, remedy=fault.remedy)
    except Exception as fault:
        remedy = "A reward must score any text; see reward_function_kwargs for its options"
        return ProbeResult(problem=f"{type(fault).__name__} on a probe: {fault}", remedy=remedy)
    if len(scores) != len(rows):
        problem = f"it returns {len(scores)} scores for {len(rows)} responses"
        remedy = "Return one dict per row: EasyR1 gives the other rows a reward of zero"
        return ProbeResult(problem=problem, remedy=remedy)
    for score in scores:
        if unfit := _unfit(score):
            problem, remedy = unfit
            return ProbeResult(problem=problem, remedy=remedy)
    return ProbeResult(scores=[{name: float(value) for name, value in score.items()} for score in scores])


def _unfit(score: Any) -> tuple[str, str] | None:
    """Return why EasyR1 cannot use a score, with the remedy; bool and numpy's float64 are accepted."""
    if not isinstance(score, dict) or "overall" not in score:
        return f"a score is {score!r:.80}, not a dict with overall", ""
    for name, value in score.items():
        if not isinstance(value, float | int):
            return f"{name} is of type {type(value).__name__}", "Return plain floats: float(value)"
        if not math.isfinite(value):
            return f"{name} is {value}", "Return finite numbers: this would poison the weights"
        if "/" in name:
            return f"the key {name} has a slash", "Use an underscore: EasyR1's log would nest it"
    return None


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(probe(**asked).model_dump_json(), encoding="utf-8")
