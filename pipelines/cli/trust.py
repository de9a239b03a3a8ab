"""`embtables replay` and `embtables audit`: whether scores and deletions are what they should be."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embtables.pipelines.cli.options import FolderPath, Json
from embtables.pipelines.json_text import json_text


def replay(
    requests: Annotated[Path, typer.Argument(help="Log of requests that a server has kept.", show_default=False)],
    folder: Annotated[Path, typer.Option("--folder", help="A run, or a state folder.", show_default=False)],
    version: Annotated[
        str | None, typer.Option("--version", help="serving-<n>, resume-<n> or a pin; by default the newest.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Score requests of other versions, too: what would this one say?")
    ] = False,
    tolerance: Annotated[float, typer.Option(min=0.0, help="How much a score may differ.")] = 1e-6,
    as_json: Json = False,
) -> None:
    """Score logged requests again and say what differs: rows bit for bit, scores, the first feature.

    The exit status is 1 if anything differs.

    Example: embtables replay requests.jsonl --folder runs/online_retail-... --version serving-12
    """
    from embtables.serving.trust.replay import replay as replay_log
    from embtables.state.read.saved_version import find_version, open_folder

    state = open_folder(folder)
    newest = state.latest("serving")
    name = newest.name if version is None and newest is not None else version
    report = replay_log(requests, find_version(state, name), every_version=every, tolerance=tolerance).report()
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
    else:
        _show_replay(report)
    if report["differing"]:
        raise typer.Exit(1)


def _show_replay(report: dict[str, Any]) -> None:
    skipped = "".join(f", {count:,} {reason}" for reason, count in report["skipped"].items())
    lines = [
        f"{report['compared']:,} of {report['requests']:,} requests compared with {report['version']}{skipped}",
        f"greatest difference of a score: {report['greatest_score_difference']:.3g}",
    ]
    for each in report["differences"]:
        score = each["reason"] or f"a score differs by {each['score']:.3g}"
        feature = "the same features" if each["feature"] is None else f"feature {each['feature']} differs first"
        lines.append(f"line {each['line']}, request {each['request_id']}: {feature}; {score}")
    more = report["differing"] - len(report["differences"])
    lines += [f"and {more:,} more"] if more > 0 else []
    lines += [] if report["differing"] else ["nothing differs"]
    sys.stderr.write("\n".join(lines) + "\n")


def audit(
    key: Annotated[str, typer.Argument(help="A key of --table, or an id of --feature.", show_default=False)],
    folder: FolderPath,
    table: Annotated[str | None, typer.Option("--table", help="Whose key it is.")] = None,
    feature: Annotated[str | None, typer.Option("--feature", help="Whose id it is.")] = None,
    server: Annotated[str | None, typer.Option("--server", help="Address of a server to ask, too.")] = None,
    as_json: Json = False,
) -> None:
    """Show that a deleted key is in no version, delta, side table or live table; list where it is.

    The exit status is 1 if it is anywhere.

    Example: embtables audit 17850 runs/online_retail-... --feature customer_id --server http://127.0.0.1:8080
    """
    from embtables.serving.trust.audit import audit as audit_folder
    from embtables.state.read.saved_version import open_folder

    report = audit_folder(open_folder(folder), key, table=table, feature=feature, server=server).report()
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
    else:
        _show_audit(report, folder)
    if report["found"]:
        raise typer.Exit(1)


def _show_audit(report: dict[str, Any], folder: Path) -> None:
    looked = ", ".join(f"{' or '.join(map(str, keys))} of table {table}" for table, keys in report["keys"].items())
    lines = [f"looked for key {looked} in {report['versions']} versions, {report['files']} files"]
    for each in report["found"]:
        place = each["file"] if each["version"] is None else f"version {each['version']}, file {each['file']}"
        lines.append(f"found: {each['what']} of {each['table']}: {place}")
    gone = sorted({each["version"] for each in report["tombstones"]})
    lines += [f"a tombstone says that it is gone: {', '.join(gone)}"] if gone else []
    if report["garbage"]:
        lines.append(f"{len(report['garbage'])} folders of no version were not read: embtables state gc {folder}")
    for purpose in sorted({str(each["version"]).split("-")[0] for each in report["found"] if each["version"]}):
        lines.append(
            "delete the key in training if the newest version has it; once that version is written, remove older "
            f"ones: embtables state compact {folder} --purpose {purpose}; embtables state gc {folder} --keep 1"
        )
    lines += [] if report["found"] else ["it is nowhere"]
    sys.stderr.write("\n".join(lines) + "\n")
