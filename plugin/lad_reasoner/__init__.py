"""LAD-Reasoner: reasoning logical anomaly detection with small vision-language models (arXiv 2504.12749)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lad-reasoner")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
