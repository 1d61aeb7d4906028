"""Replaces verl's load balancer (``rollout.router_config_path``): there is nothing to balance.

verl starts it in a separate process, so this module imports neither verl nor torch.
"""

from __future__ import annotations

__all__ = ["NoRouter"]


class NoRouter:
    """Does nothing: `rollout.BatchRollout` distributes the prompts of a step itself."""

    def __init__(self, *_unused: object) -> None:
        pass
