"""Rollouts held to the answer template: what the option ``--structured`` of `easyr1` adds to verl.

Nothing here imports verl.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.response import template_regex
from lad_reasoner.training.easyr1.config import EasyR1Config
from lad_reasoner.training.installed import TrainerName

__all__ = ["refuse_structured", "structured_overrides"]

_AGENT: Final = "actor_rollout_ref.rollout.agent"


def structured_overrides() -> dict[str, object]:
    """Return the overrides that replace verl's agent loop by ours; verl reads the loop's class from the YAML."""
    return {
        f"{_AGENT}.default_agent_loop": "lad_template",
        f"{_AGENT}.agent_loop_config_path": str(files(__package__) / "template_loop.yaml"),
    }


def refuse_structured(config: EasyR1Config, trainer: TrainerName, *, vllm: bool) -> None:
    """Reject structured rollouts that nothing would hold to the template; ``vllm``: vLLM samples the responses.

    Raises:
        UsageError: The trainer or the engine cannot constrain its decoding, or the template does not fit.
    """
    if not config.structured:
        return
    if trainer == "easyr1":
        problem = "EasyR1 builds vLLM's sampling parameters from its own keys, and none of them constrains decoding"
        raise UsageError(problem, where="--structured", remedy="Train with verl, or leave out --structured")
    if not vllm:
        problem = "the CPU rollout does not constrain decoding; vLLM does"
        remedy = "Train on a GPU, rehearse with --engine vllm, or leave out --structured"
        raise UsageError(problem, where="--structured", remedy=remedy)
    template_regex(config["data.max_response_length"])
