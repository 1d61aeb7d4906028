"""Load a backend by its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final

from lad_reasoner.inference.protocol import Backend, BackendName, BackendOptions
from lad_reasoner.models.hub import has_hub
from lad_reasoner.support.errors import UsageError, install_hint
from lad_reasoner.task.response import template_regex

__all__ = ["load_backend"]

#: The extra that installs a backend's packages.
_EXTRAS: Final[dict[BackendName, str]] = {"transformers": "predict", "openai": "annotate", "vllm": "vllm"}


def load_backend(name: BackendName, options: BackendOptions) -> Backend:
    """Load a model for asking.

    Raises:
        UsageError: The backend does not support an option, or a package is not installed.
        DataError: The model cannot be loaded.
    """
    if name not in _EXTRAS:
        raise UsageError(f"there is no backend {name!r}", remedy=f"Use {', '.join(_EXTRAS)}")
    if not isinstance(options, BackendOptions):
        raise TypeError(f"the options are of type {type(options).__name__}, not BackendOptions or the name of a model")
    if options.structured:
        template_regex(options.max_new_tokens)  # too few tokens are an error before the model is loaded
    try:
        if name != "openai" and find_spec("torch"):
            has_hub(options.model)  # before torch is imported, which takes seconds
        return _backend_class(name)(options)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("lad_reasoner"):
            raise
        problem = f"--backend {name} needs the package {error.name}, which is not installed"
        raise UsageError(problem, remedy=install_hint(_EXTRAS[name])) from error


def _backend_class(name: BackendName) -> Callable[[BackendOptions], Backend]:
    if name == "transformers":
        from lad_reasoner.inference.backends.transformers import TransformersBackend

        return TransformersBackend
    if name == "openai":
        from lad_reasoner.inference.backends.openai import OpenAIBackend

        return OpenAIBackend
    from lad_reasoner.inference.backends.vllm import VllmBackend

    return VllmBackend
