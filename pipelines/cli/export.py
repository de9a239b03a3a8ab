"""`embtables export`: a trained model's dense net for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embtables.pipelines.cli.options import FolderPath, Json
from embtables.pipelines.json_text import json_text


def export(
    run: FolderPath,
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.", show_default=False)],
    version: Annotated[
        str | None, typer.Option(help="best, last or a version such as resume-12; by default best, else last.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the dense net as ONNX: pooled embeddings by feature and dense columns in, logits out.

    What onnxruntime computes is compared with torch before the file is written.

    Example: embtables export runs/online_retail-... --onnx dense.onnx
    """
    from embtables.models.scorer import Scorer
    from embtables.pipelines.progress import console
    from embtables.pipelines.trained.export_onnx import export_onnx
    from embtables.state.read.find import find
    from embtables.state.read.saved_version import open_folder

    state = open_folder(run)
    name = find(state.folder, version)[-1].name
    report = export_onnx(Scorer.from_version(run, name), onnx, name)
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
        return
    error = f"greatest difference from torch {report['greatest_error']:.1e}"
    console().print(f"{report['file']}: {report['bytes']:,} bytes, {name}; {error}")
    for given, width in report["inputs"].items():
        console().print(f"  {given}: (rows, {width})", highlight=False)
