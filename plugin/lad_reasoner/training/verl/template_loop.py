"""verl's single-turn agent loop with vLLM's decoding held to the answer template (``easyr1 --structured``)."""

from __future__ import annotations

from typing import Any

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from vllm.sampling_params import StructuredOutputsParams

from lad_reasoner.task.response import template_regex

__all__ = ["TemplateAgentLoop"]


class TemplateAgentLoop(SingleTurnAgentLoop):  # type: ignore[misc]
    """Samples one response per prompt that follows the template; verl creates it by name."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Sample a response with verl's own parameters and the template's regular expression."""
        template = StructuredOutputsParams(regex=template_regex(self.response_length))
        return await super().run({**sampling_params, "structured_outputs": template}, **kwargs)
