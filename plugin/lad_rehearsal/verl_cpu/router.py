"""What stands where verl has its load balancer (``rollout.router_config_path``): nothing is left to balance.

verl starts it in a process of its own; this one imports neither verl nor torch.
"""

from __future__ import annotations

__all__ = ["NoRouter"]


class NoRouter:
    """Does nothing: `rollout.BatchRollout` deals a step's prompts out itself."""

    def __init__(self, *_unused: object) -> None:
        pass
