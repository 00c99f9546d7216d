"""Where a result comes from: which version of this package, which model, which facts."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from laser_interp.storage.atomic import plain


def code_version() -> str:
    """Version of this package as it is installed."""
    try:
        return version("laser-interp")
    except PackageNotFoundError:
        return "not installed"


def provenance(model: Any, facts: Any = None) -> dict[str, Any]:
    """Which model and facts a result is of; this room knows neither class."""
    of_facts = (
        {} if facts is None else {"facts": facts.name, "facts_sha256": facts.sha256, "separator": facts.separator}
    )
    if facts is not None and facts.answers_sha256 is not None:
        of_facts["answers_sha256"] = facts.answers_sha256
    of_model = {"model": model.name, "revision": model.revision, "weights_sha256": model.weights_sha256}
    was = {"quantisation": model.quantisation} if model.quantisation else {}
    return of_model | was | of_facts


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Hash of a run's settings, whatever order they are in."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()
