"""`data describe` and `init`: what a log holds, and the configuration that it suggests.

Both look at a sample (embtables/frames): at most a million rows, evenly spread over the log, the same every time.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml

from embtables.errors import ConfigError
from embtables.frames.facts import ColumnFacts, facts_of
from embtables.frames.sample import Sample, largest_table, sample_of
from embtables.frames.suggest import Suggestion, Wishes, suggest
from embtables.inputs.values import one_array
from embtables.pipelines.config import RunConfig, absolute
from embtables.schema import validate

_LISTED = 8
_FEW_ROWS = 100_000  # looked at for what may be a label
_GRADES, _RANGE = 11, 100  # values of a rating, and from the least to the greatest, at most


def describe(path: str, wishes: Wishes) -> dict[str, Any]:
    """What a log holds, as JSON: rows, files, each column's type and figures, label, time, and a suggested `schema`.

    Raises:
        DataError, ConfigError: as `Schema.infer`.
    """
    sample = sample_of(path, wishes.labels)
    found = suggest(sample, wishes)
    roles = _roles(found)
    report: dict[str, Any] = {
        "rows": sample.total_rows,
        "rows_looked_at": sample.table.num_rows,
        "files": sample.files,
        "files_left_out": list(sample.left_out),
        "columns": {name: {**_shown(facts), "role": roles[name]} for name, facts in found.facts.items()},
        "labels": {name: {"positive_share": round(share, 6)} for name, share in found.positive_share.items()},
        "leaks": found.leaks,
    }
    time = found.content.get("event_time")
    if time is not None:
        facts = found.facts[time["column"]]
        report["time"] = {"column": time["column"], "from": _json(facts.low), "to": _json(facts.high)}
    report["schema"] = _text(found.content)
    return report


def starting_config(path: str, wishes: Wishes) -> str:
    """A whole configuration for a first run on a log, as YAML with what is to be known of it in comments.

    Raises:
        DataError, ConfigError: as `Schema.infer`; or there is no label.
    """
    if not wishes.labels:
        raise ConfigError(f"a run needs a label: --label COLUMN. {_label_candidates(path)}")
    sample = sample_of(path, wishes.labels)
    found = suggest(sample, wishes)
    place = Path(absolute(path, Path.cwd()))
    data: dict[str, Any] = {"path": str(place) if "://" not in path else path}
    if sample.left_out and sample.files == 1 and place.is_dir():
        data["files"] = _only_file(place, sample)
    dividing = _split_columns(found)
    if dividing:
        data["split"] = {"kind": "hash", "columns": dividing}
    data["shuffle"] = {"seed": 0}
    if sample.lacking:
        data["on_missing_column"] = "null"
    content = {
        "name": _run_name(place),
        **{name: value for name, value in found.content.items() if value},
        "data": data,
        "model": {"kind": "dcnv2"},
        "train": {"epochs": 1, "batch_size": 4096},
    }
    validate(RunConfig, content)
    return _comments(sample, found) + _text(content)


def _label_candidates(path: str) -> str:
    """Which columns of a log may be its label, as a sentence."""
    binary: list[str] = []
    graded: list[str] = []
    columns = sample_of(largest_table(path), (), _FEW_ROWS).table
    for name in columns.column_names:
        facts = facts_of(columns.column(name))
        is_graded = facts.kind in ("integer", "number") and 1 < facts.distinct <= _GRADES
        if facts.kind == "boolean" or (is_graded and facts.high - facts.low <= _RANGE):
            is_binary = facts.kind == "boolean" or ({facts.low, facts.high} == {0, 1} and facts.distinct == 2)
            (binary if is_binary else graded).append(name if is_binary else f"{name} ({facts.low} to {facts.high})")
    found = [f"columns of 0 and 1: {_some(binary)}"] if binary else []
    found += [f"columns of a few numbers, with --positive-above: {_some(graded)}"] if graded else []
    if not found:
        return (
            "No column holds 0 and 1 or a few numbers alone; a log of purchases has no label, and data.prepare makes "
            "examples of it (docs/negatives.md)"
        )
    return f"There are {'; and '.join(found)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _run_name(place: Path) -> str:
    """A name for runs on a log: that of its file or folder."""
    kept = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in place.stem
    )
    return kept if kept[:1].isalpha() or kept.startswith("_") else f"_{kept}"


def _only_file(folder: Path, sample: Sample) -> str:
    left_out = set(sample.left_out)
    kept = [each for each in sorted(folder.rglob("*.parquet")) if each.name not in left_out]
    return str(kept[0].relative_to(folder))


def _split_columns(found: Suggestion) -> list[str]:
    """The columns of ids whose hash divides the rows: those of users and items if there are, else all of them, else
    the time. None where no column divides them: lists do not.
    """
    plain = [each for each in found.content["features"] if each.get("pooling") is None]
    sided = [each for each in plain if "side" in each]
    time = [found.content["event_time"]["column"]] if "event_time" in found.content else []
    return [each.get("column", each["name"]) for each in sided or plain] or time


def _roles(found: Suggestion) -> dict[str, str]:
    roles = {name: f"left out: it {reason}" for name, reason in found.left_out.items()}
    roles |= {each["column"]: "label" for each in found.content["labels"]}
    roles |= {each.get("column", each["name"]): "feature" for each in found.content["features"]}
    roles |= {each["column"]: "dense" for each in found.content["dense"]}
    if "event_time" in found.content:
        roles[found.content["event_time"]["column"]] = "event_time"
    return roles


def _shown(facts: ColumnFacts) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": facts.type, "distinct": facts.distinct, "nulls": facts.nulls}
    if facts.low is not None:
        shown |= {"low": _json(facts.low), "high": _json(facts.high)}
    if facts.not_finite:
        shown["not_finite"] = facts.not_finite
    if facts.length is not None:
        shown |= {"mean_length": round(facts.length[0], 2), "max_length": facts.length[1]}
    return shown


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _comments(sample: Sample, found: Suggestion) -> str:
    looked = sample.table.num_rows
    of_them = "" if looked == sample.total_rows else f", of which {looked:,} were looked at"
    lines = [f"Suggested from {sample.total_rows:,} rows{of_them}. Every option: docs/options.md."]
    shares = (f"{name}: {share:.2%} positive" for name, share in found.positive_share.items())
    lines += [f"Label {share}." for share in shares]
    lines += [f"Left out: {name} {reason}." for name, reason in found.left_out.items()]
    if not _split_columns(found):
        lines.append("No column divides the rows: all are trained on. Give data.split or data.parts to test the model.")
    lines += [f"Not looked at: {name}, which lacks the label; data.join adds its columns." for name in sample.left_out]
    lines += _time_split(sample, found)
    return "".join(f"# {line}\n" for line in lines)


def _time_split(sample: Sample, found: Suggestion) -> list[str]:
    """The split by time that tests on the last tenth of the rows, as an advice."""
    time = found.content.get("event_time")
    if time is None or "unit" in time:
        return []
    stamps = one_array(sample.table.column(time["column"]))
    validation, test = (pc.sort_indices(stamps)[int(len(stamps) * share)].as_py() for share in (0.8, 0.9))
    begins = [_json(stamps[place].as_py()) for place in (validation, test)]
    if begins[0] >= begins[1]:
        return []
    return [f"To test on the future: split: {{kind: time, validation_from: '{begins[0]}', test_from: '{begins[1]}'}}"]


def _text(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=118)
