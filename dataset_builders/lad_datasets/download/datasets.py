"""Where the datasets are published, under which licence, and the checksums of their archives.

Addresses and SHA-256 are those of anomalib 2.7 (open-edge-platform/anomalib, src/anomalib/data), except MMAD's
address, which is its dataset card's; no source states a checksum of it. They were not downloaded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lad_datasets.sources.samples import CC_BY_4, CC_BY_NC_SA_4, Licence

__all__ = ["DATASETS", "Published"]


@dataclass(frozen=True, slots=True)
class Published:
    """A dataset's archive.

    Attributes:
        page: Where its authors present it.
        sha256: Checksum of the archive; None where no source states one.
        gigabytes: Size of the archive; about as much again is needed for its contents.
        layout: A path inside that every complete copy has; the folder above it becomes the root.
        used_by: The option that reads the result.
    """

    title: str
    page: str
    url: str
    sha256: str | None
    gigabytes: float
    licence: Licence
    layout: str
    used_by: str


DATASETS: Final[dict[str, Published]] = {
    "mvtec-ad": Published(
        title="MVTec AD",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        url="https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/"
        "mvtec_anomaly_detection.tar.xz",
        sha256="cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        gigabytes=5.3,
        licence=CC_BY_NC_SA_4,
        layout="bottle/train/good",
        used_by="lad build grpo --mvtec",
    ),
    "visa": Published(
        title="VisA",
        page="https://github.com/amazon-science/spot-diff",
        url="https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        sha256="2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        gigabytes=1.9,
        licence=CC_BY_4,
        layout="candle/Data/Images",
        used_by="lad build grpo --visa",
    ),
    "mvtec-loco": Published(
        title="MVTec LOCO AD",
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        url="https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/430647091-1646842701/"
        "mvtec_loco_anomaly_detection.tar.xz",
        sha256="9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        gigabytes=5.7,
        licence=CC_BY_NC_SA_4,
        layout="screw_bag/train/good",
        used_by="lad build loco --root",
    ),
    "mmad": Published(
        title="MMAD",
        page="https://huggingface.co/datasets/jiang-cc/MMAD",
        url="https://huggingface.co/datasets/jiang-cc/MMAD/resolve/main/ALL_DATA.zip",
        sha256=None,
        gigabytes=28.3,
        licence=CC_BY_NC_SA_4,
        layout="mmad.json",
        used_by="lad annotate --mmad, lad build mmad --root",
    ),
}
