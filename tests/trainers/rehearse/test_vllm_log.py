"""vLLM's settings and messages in the log of a trainer that runs it through Ray."""

from __future__ import annotations

from pathlib import Path

from lad_rehearsal.rehearse.vllm_log import read_messages, read_settings

#: As Ray, verl and vLLM write it; the colours are Ray's.
LOG = """\
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m ['serve',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '/tmp/out/model',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '--max_model_len',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '2304',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '--enable_chunked_prefill',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '--max_num_batched_tokens',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '8192',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '--limit_mm_per_prompt',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '{"image": 2}',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '--seed',
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m  '1']
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m INFO 11-26 22:26:12 [scheduler.py:2] Chunked prefill is enabled with 8192.
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m INFO 11-26 22:26:12 [loader.py:2] Loading took 0.1 seconds
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m (Worker pid=24) WARNING 11-26 22:26:54 [worker.py:1] no libiomp in LD_PRELOAD.
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m (Worker pid=24) WARNING 11-26 22:26:55 [a.py:1] The prompt limit is large.
\x1b[36m(vLLMHttpServer pid=19)\x1b[0m (EngineCore pid=25) WARNING 11-26 22:26:56 [a.py:1] The prompt limit is large.
\x1b[36m(TaskRunnerV1 pid=18)\x1b[0m INFO:2026-11-26 22:26:56,100:reward loop manager initialized
"""


def test_settings_are_those_on_vllms_command_line(tmp_path: Path) -> None:
    (tmp_path / "trainer.log").write_text(LOG)
    assert read_settings(tmp_path / "trainer.log") == {
        "max_model_len": "2304",
        "max_num_batched_tokens": "8192",
        "enable_chunked_prefill": "on",
        "limit_mm_per_prompt": '{"image": 2}',
    }


def test_messages_are_warnings_and_limits_each_once_without_those_about_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "trainer.log").write_text(LOG)
    assert read_messages(tmp_path / "trainer.log") == [
        "info: Chunked prefill is enabled with 8192.",
        "warning: The prompt limit is large.",
    ]
