"""MVTec AD: 15 categories, 73 defects, 3,629 normal training and 1,725 test images.

Licence: CC BY-NC-SA 4.0 (c) MVTec Software GmbH.
Reference: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021;
https://www.mvtec.com/company/research/datasets/mvtec-ad

    <category>/train/good/NNN.png
    <category>/test/{good,<defect>}/NNN.png
    <category>/ground_truth/<defect>/NNN_mask.png      not read: the defect is the folder's name
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lad_datasets.sources.folder import scan_folders
from lad_datasets.sources.folder_names import COMMON, FolderNames
from lad_datasets.sources.recognise import MVTEC_AD_CATEGORIES, refuse_other_dataset
from lad_datasets.sources.samples import CC_BY_NC_SA_4, Tree, read_marker

__all__ = ["CATEGORIES", "scan"]

CATEGORIES: Final = MVTEC_AD_CATEGORIES


def scan(root: Path, names: FolderNames = COMMON) -> Tree:
    """List a tree's images.

    Raises:
        DataError: The folder is not laid out as above, or is another dataset.
    """
    refuse_other_dataset(root, "mvtec_ad")
    dataset, licence = read_marker(root, dataset="mvtec_ad", licence=CC_BY_NC_SA_4)
    samples, notes = scan_folders(root, names)
    return Tree(dataset, "mvtec_ad", root, licence, samples, notes)
