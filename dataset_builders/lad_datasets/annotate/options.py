"""How a model is asked to write annotations."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from lad_datasets.annotate.costs import Prices
from lad_reasoner.support.errors import UsageError

__all__ = ["ModelOptions", "is_local", "read_api_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a model is asked to write.

    Attributes:
        base_url: Address of the endpoint, up to and including ``/v1``.
        key_variable: Environment variable that holds the API key.
        max_pixels: Larger images are shrunk to this area.
        attempts: Maximum replies per image until one is fit.
        concurrency: Maximum requests in flight.
        timeout: Seconds per request.
        tries: Maximum tries per request while its faults may pass.
        structured: ``json_schema``, ``json_object`` or ``none``.
        temperature: Sampling temperature; None leaves it to the endpoint.
        backoff: Upper bound of the first wait, in seconds.
        prices: None if nothing is counted.
        budget: Limit in USD; None for no limit.
    """

    base_url: str
    model: str
    key_variable: str
    max_pixels: int
    max_tokens: int
    attempts: int
    concurrency: int
    per_minute: float | None
    timeout: float
    tries: int
    structured: str
    temperature: float | None
    backoff: float
    prices: Prices | None
    budget: float | None


def read_api_key(variable: str, *, local: bool) -> str:
    """Return the API key from the environment; a server on this machine needs none.

    Raises:
        UsageError: The variable is not set and the endpoint is elsewhere.
    """
    key = os.environ.get(variable, "").strip()
    if key or local:
        return key or "none"
    raise UsageError(f"the environment variable {variable} is not set", remedy="Set it to the endpoint's API key")


def is_local(url: str) -> bool:
    """Return whether the endpoint is on this machine, and so needs no key.

    Raises:
        UsageError: It is no address, or carries a secret that would be stored with it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that are not closed
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        remedy = "Give an address such as http://127.0.0.1:8000/v1"
        raise UsageError("not an http or https address", where="--base-url", remedy=remedy)
    if parts.username or parts.password or parts.query:
        remedy = "Give the key in the environment only"
        raise UsageError("the address has credentials or a query", where="--base-url", remedy=remedy)
    if parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False
