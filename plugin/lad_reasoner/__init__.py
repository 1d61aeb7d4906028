"""LAD-Reasoner: reasoning logical anomaly detection with small vision-language models (arXiv 2504.12749).

Each public name is imported on first use, so that `import lad_reasoner` needs neither torch nor pyarrow. Nothing is
printed: progress goes to a callback, and messages go to the logger "lad_reasoner". docs/python.md shows each function.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lad_reasoner.api import (
        Report,
        ResponseScore,
        ask,
        check_config,
        compare,
        load_backend,
        predict,
        score,
        score_response,
        score_responses,
        write_report,
    )
    from lad_reasoner.evaluation.compare import Comparison
    from lad_reasoner.evaluation.protocols import select
    from lad_reasoner.evaluation.score import RunScore
    from lad_reasoner.inference.ask import Verdict
    from lad_reasoner.inference.predict import PredictSummary
    from lad_reasoner.inference.predictions import Prediction, read_predictions
    from lad_reasoner.inference.protocol import Answer, Backend, BackendOptions, Question
    from lad_reasoner.pairs.reader import PairRecord, Truth, iter_pairs, read_truths
    from lad_reasoner.pairs.schema import Image, Pair
    from lad_reasoner.support.errors import DataError, LadError, RunError, UsageError
    from lad_reasoner.support.findings import Finding
    from lad_reasoner.task.response import Response, parse
    from lad_reasoner.task.task import problem_text, prompt_text

    __version__: str

__all__ = [
    "Answer",
    "Backend",
    "BackendOptions",
    "Comparison",
    "DataError",
    "Finding",
    "Image",
    "LadError",
    "Pair",
    "PairRecord",
    "PredictSummary",
    "Prediction",
    "Question",
    "Report",
    "Response",
    "ResponseScore",
    "RunError",
    "RunScore",
    "Truth",
    "UsageError",
    "Verdict",
    "__version__",
    "ask",
    "check_config",
    "compare",
    "iter_pairs",
    "load_backend",
    "parse",
    "predict",
    "problem_text",
    "prompt_text",
    "read_predictions",
    "read_truths",
    "score",
    "score_response",
    "score_responses",
    "select",
    "write_report",
]

#: Where the names live that are not in `lad_reasoner.api`.
_HOMES = {
    "evaluation.compare": ("Comparison",),
    "evaluation.protocols": ("select",),
    "evaluation.score": ("RunScore",),
    "inference.ask": ("Verdict",),
    "inference.predict": ("PredictSummary",),
    "inference.predictions": ("Prediction", "read_predictions"),
    "inference.protocol": ("Answer", "Backend", "BackendOptions", "Question"),
    "pairs.reader": ("PairRecord", "Truth", "iter_pairs", "read_truths"),
    "pairs.schema": ("Image", "Pair"),
    "support.errors": ("DataError", "LadError", "RunError", "UsageError"),
    "support.findings": ("Finding",),
    "task.response": ("Response", "parse"),
    "task.task": ("problem_text", "prompt_text"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the application decides what is shown


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from lad_reasoner.support.packages import installed_version

        value: Any = installed_version("lad-reasoner") or "0+unknown"  # a source tree that was never installed
    else:
        value = getattr(import_module(f"{__name__}.{_HOME_OF.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
