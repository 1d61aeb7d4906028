"""LAD-Reasoner: reasoning logical anomaly detection with small vision-language models (arXiv 2504.12749)."""

import logging
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lad-reasoner")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # the application decides what is shown
