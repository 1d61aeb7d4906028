"""Models that are named, not given as a folder: whether the Hugging Face hub has them and can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError

__all__ = ["PATIENCE", "has_hub"]

#: Seconds in which the hub has to answer. Without this question first, its client tries again for about a minute.
PATIENCE: Final = 5.0


def has_hub(model: str) -> bool:
    """Return whether the files of a model can be fetched from the hub; if not, those on this machine must do.

    Args:
        model: Folder or hub name. A folder needs no hub.

    Raises:
        DataError: The hub has no such model, or does not answer and no copy of the model is on this machine.
    """
    if Path(model).is_dir():
        return False
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    give = "Give a model folder or a name such as Qwen/Qwen2.5-VL-3B-Instruct"
    try:
        HfApi().model_info(model, timeout=PATIENCE)
    except HFValidationError:
        raise DataError("neither a folder nor a name on the Hugging Face hub", where=model, remedy=give) from None
    except RepositoryNotFoundError as error:
        problem = "the Hugging Face hub has no such model, or you have no access to it"
        remedy = f"{give}; for a private model, log in with `hf auth login`"
        raise DataError(problem, where=model, remedy=remedy) from error
    except Exception as error:  # no network, a proxy, a server error, HF_HUB_OFFLINE
        if isinstance(try_to_load_from_cache(model, "config.json"), str):
            return False
        problem = "the model is not on this machine, and the Hugging Face hub cannot be reached"
        raise DataError(problem, where=model, remedy="Connect to the network, or give the model's folder") from error
    return True
