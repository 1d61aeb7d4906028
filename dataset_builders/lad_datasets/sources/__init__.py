"""One dataset a module: description, licence, reference, layout and ``scan()``."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from lad_datasets.sources.samples import APACHE_2, CC_BY_4, CC_BY_NC_SA_4, OWN_DATA, SYNTHETIC_IDS, Licence
from lad_reasoner.support.errors import DataError

__all__ = ["EVALUATION_DATASETS", "licence_of"]

#: Datasets whose test images are for evaluation alone.
EVALUATION_DATASETS: Final = frozenset({"mvtec_loco", "synthetic_loco", "mmad"})

_LICENCES: Final = {
    "mvtec_ad": CC_BY_NC_SA_4,
    "mvtec_loco": CC_BY_NC_SA_4,
    "mmad": CC_BY_NC_SA_4,
    "mmad_train": CC_BY_NC_SA_4,
    "visa": CC_BY_4,
}

_SYNTHETIC: Final = frozenset({*SYNTHETIC_IDS.values(), "synthetic_sft"})

#: Ids by other spellings of the datasets' names, without case and separators.
_SPELLINGS: Final = {
    **{name.replace("_", ""): name for name in _LICENCES},
    **dict.fromkeys(("mvtec", "mvtecanomalydetection", "dsmvtec"), "mvtec_ad"),
    **dict.fromkeys(("loco", "locoad", "mvtecadloco", "mvteclocoad", "mvtecanomalydetectionloco"), "mvtec_loco"),
    **dict.fromkeys(("mvtecvisa", "visa1cls", "amazonvisa"), "visa"),
    **{name.replace("_", ""): name for name in _SYNTHETIC},
}


def licence_of(dataset: str) -> Licence:
    """Return the licence of a dataset, by its id; of an unknown one, its owner's own.

    Raises:
        DataError: The id is a published dataset's name in another spelling, whose licence would be lost.
    """
    if dataset in _SYNTHETIC:
        return APACHE_2
    bare = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", dataset).casefold())
    if dataset not in _LICENCES and (known := _SPELLINGS.get(bare)):
        raise DataError(f"the dataset {dataset!r} looks like {known}", remedy=f"Write {known}, for its licence")
    return _LICENCES.get(dataset, OWN_DATA)
