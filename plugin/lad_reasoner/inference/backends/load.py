"""Load a backend by its name."""

from __future__ import annotations

from lad_reasoner.inference.protocol import Backend, BackendName, BackendOptions

__all__ = ["load_backend"]


def load_backend(name: BackendName, options: BackendOptions) -> Backend:
    """Load a model for asking.

    Raises:
        UsageError: An option that the backend does not know, or a package that is not installed.
        DataError: The model cannot be loaded.
    """
    if name == "transformers":
        from lad_reasoner.inference.backends.transformers import TransformersBackend

        return TransformersBackend(options)
    if name == "openai":
        from lad_reasoner.inference.backends.openai import OpenAIBackend

        return OpenAIBackend(options)
    from lad_reasoner.inference.backends.vllm import VllmBackend

    return VllmBackend(options)
