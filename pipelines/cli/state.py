"""`embtables state`: the versions of a run, or of any state folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from embtables.pipelines.cli.options import FolderPath, Json, Version
from embtables.pipelines.json_text import json_text

app = typer.Typer(
    help="List, verify, compare, compact, clean, publish and export the versions of a run or state folder.",
    no_args_is_help=True,
)


@app.command("ls")
def list_versions(folder: FolderPath, as_json: Json = False) -> None:
    """List the versions there are.

    Example: embtables state ls runs/online_retail-...
    """
    from embtables.pipelines.progress import console
    from embtables.pipelines.state_tools.commands import listing, shown
    from embtables.state.read.saved_version import open_folder

    versions = listing(open_folder(folder))
    if as_json:
        _json({"versions": versions})
    else:
        console().print(shown(versions))


@app.command("verify")
def verify_versions(folder: FolderPath, version: Version = None, as_json: Json = False) -> None:
    """Read every byte of a version and of those it depends on (by default of all) and compare checksums.

    Example: embtables state verify runs/online_retail-...
    """
    from embtables.pipelines.state_tools.commands import verify
    from embtables.state.read.saved_version import open_folder

    _print_report(
        verify(open_folder(folder), version), as_json, "{versions} versions, {files} files, {bytes:,} bytes: whole"
    )


@app.command("gc")
def collect_garbage(
    folder: FolderPath,
    keep: Annotated[int, typer.Option(min=1, help="Newest versions of each purpose to keep.")] = 2,
    as_json: Json = False,
) -> None:
    """Remove old versions that nothing pinned or newer needs, and what failed writes left.

    Example: embtables state gc runs/online_retail-... --keep 1
    """
    from embtables.pipelines.state_tools.commands import collect
    from embtables.state.read.saved_version import open_folder

    _print_report(collect(open_folder(folder), keep), as_json, "{freed_bytes:,} bytes freed, {versions} versions left")


@app.command("compact")
def compact_chain(
    folder: FolderPath,
    keep: Annotated[int, typer.Option(min=1, help="Newest versions of that purpose to keep.")] = 1,
    purpose: Annotated[
        str | None, typer.Option(help="resume or serving; by default resume, if there is a version of it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compact the newest version and those it depends on to one snapshot, and remove old versions.

    Example: embtables state compact runs/online_retail-...
    """
    from embtables.pipelines.state_tools.commands import compact
    from embtables.state.read.saved_version import open_folder

    report = compact(open_folder(folder), purpose, keep)
    text = "{version}: a snapshot of {bytes:,} bytes, of {compacted_versions} versions; {freed_bytes:,} bytes freed"
    _print_report(report, as_json, text)
    for pin, version in report["pins_of_older_versions"].items():
        moved = f"embtables state pin {folder} {pin} {report['version']}"
        sys.stderr.write(
            f"{version} is kept because pin '{pin}' names it. To free it, run {moved}, then compact again.\n"
        )


@app.command("pin")
def pin_version(
    folder: FolderPath,
    pin: Annotated[str, typer.Argument(help="Name of the pin, such as best.", show_default=False)],
    version: Annotated[str, typer.Argument(help="resume-<n>, serving-<n> or another pin.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Keep a version until its pin moves on.

    Example: embtables state pin runs/online_retail-... best resume-8
    """
    from embtables.pipelines.state_tools.commands import pin as pin_it
    from embtables.state.read.saved_version import open_folder

    _print_report(pin_it(open_folder(folder), pin, version), as_json, "{pin} keeps {version}")


@app.command("publish")
def publish_version(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run or state folder.", show_default=False)],
    to: Annotated[Path, typer.Option(help="Folder of the versions for servers; it is made if need be.")],
    version: Annotated[
        str | None, typer.Option(help="best, last or a version such as resume-12; by default best, else last.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="How files have the weights: fp32, bf16, fp16 or int8.")] = "fp32",
    keep: Annotated[int, typer.Option(min=1, help="Newest versions of the folder to keep.")] = 8,
    without_side_tables: Annotated[
        bool, typer.Option("--without-side-tables", help="Publish nothing that servers join to requests.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a version as the next one for servers: a snapshot without what only training needs.

    Example: embtables state publish runs/online_retail-... --version best --to served/
    """
    from embtables.given import as_choice
    from embtables.pipelines.state_tools.publish import publish
    from embtables.state.format.weight_dtype import WEIGHT_DTYPES

    chosen = as_choice(dtype, WEIGHT_DTYPES, "dtype")
    report = publish(run, to, version, chosen, keep=keep, with_side_tables=not without_side_tables)
    _print_report(report, as_json, "{version} of {from} in {folder}: {bytes:,} bytes, {dtype}")


@app.command("diff")
def compare_versions(
    folder: FolderPath,
    a: Annotated[str, typer.Argument(metavar="A", help="resume-<n>, serving-<n> or a pin.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The version to compare it with.", show_default=False)],
    against: Annotated[Path | None, typer.Option(help="Run or state folder where B lies, if not FOLDER.")] = None,
    as_json: Json = False,
) -> None:
    """Say in which rows, tensors and settings two versions differ.

    Example: embtables state diff runs/online_retail-... best resume-12
    """
    from embtables.pipelines.progress import console
    from embtables.pipelines.state_tools.diff import diff, shown
    from embtables.state.read.saved_version import open_folder

    first = open_folder(folder)
    report = diff(first, a, first if against is None else open_folder(against), b)
    if as_json:
        _json(report)
    else:
        console().print(shown(report))


@app.command("export")
def export_table(
    folder: FolderPath,
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    output: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    version: Version = None,
    as_json: Json = False,
) -> None:
    """Write a table's rows to parquet: key, weight, optimizer state, seen, count.

    Example: embtables state export runs/online_retail-... stock_code items.parquet --version best
    """
    from embtables.pipelines.state_tools.commands import export
    from embtables.state.read.saved_version import open_folder

    _print_report(
        export(open_folder(folder), table, output, version), as_json, "{rows:,} rows of {version} in {output}"
    )


def _print_report(report: dict[str, Any], as_json: bool, text: str) -> None:
    if as_json:
        _json(report)
    else:
        sys.stderr.write(text.format(**report) + "\n")


def _json(report: dict[str, Any]) -> None:
    sys.stdout.write(json_text(report) + "\n")
