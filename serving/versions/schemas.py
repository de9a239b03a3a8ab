"""Whether two versions mean the same by a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embtables.errors import StateError
from embtables.models.version_content import ScoringContent
from embtables.state.format.manifest import Manifest

# What rows were weighted by in the loss says nothing about a request.
_OF_TRAINING = {"name", "sample_weight"}


class OtherSchemaError(StateError):
    """A version is of another schema than the one that is served."""


def need_same_tables(served: ScoringContent, content: ScoringContent, manifest: Manifest) -> None:
    """Raises OtherSchemaError unless a delta has the schema of the version before: its rows go into the same tables."""
    found = _differing(_dumped(served), _dumped(content))
    if found:
        raise OtherSchemaError(f"its {', '.join(found)} are not those of the version before it", version=manifest.name)


def need_same_requests(served: ScoringContent, content: ScoringContent, manifest: Manifest) -> None:
    """Raises OtherSchemaError unless a snapshot takes the same requests, and answers have the same labels and dims.

    Its model may be another one, and so may what its tables learn by.
    """
    found = _differing(_of_requests(served), _of_requests(content))
    if found:
        raise OtherSchemaError(
            f"its {', '.join(found)} are not those that are served: requests would mean something else; restart the "
            f"server, or pin {manifest.name}, once those who send requests know",
            version=manifest.name,
        )


def _dumped(content: ScoringContent) -> dict[str, Any]:
    return content.trained.model_dump(mode="json", exclude=_OF_TRAINING)


def _of_requests(content: ScoringContent) -> dict[str, Any]:
    found = _dumped(content)
    del found["model"]
    found["tables"] = [{"name": table["name"], "dim": table["dim"]} for table in found["tables"]]
    return found


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What differs, in words: `features (item, user)`."""
    found = []
    for part in dict.fromkeys((*one, *other)):
        first, second = one.get(part), other.get(part)
        if first == second:
            continue
        if not isinstance(first, list) or not isinstance(second, list):
            found.append(part)
            continue
        by_name = [{item.get("name") or item.get("column"): item for item in items} for items in (first, second)]
        names = [str(n) for n in dict.fromkeys((*by_name[0], *by_name[1])) if by_name[0].get(n) != by_name[1].get(n)]
        found.append(f"{part} ({', '.join(names[:8])})" if names else f"order of {part}")
    return found
