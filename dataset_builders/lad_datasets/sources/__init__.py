"""One dataset a module: description, licence, reference, layout and ``scan()``."""

from __future__ import annotations

from typing import Final

from lad_datasets.sources.samples import APACHE_2, CC_BY_4, CC_BY_NC_SA_4, OWN_DATA, Licence

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


def licence_of(dataset: str) -> Licence:
    """Return the licence of a dataset, by its id; of an unknown one, its owner's own."""
    return APACHE_2 if dataset.startswith("synthetic_") else _LICENCES.get(dataset, OWN_DATA)
