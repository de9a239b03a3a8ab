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
    version: Annotated[str, typer.Option("--version", help="best, last, or a version's name: resume-12.")] = "best",
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

    versions = run / "checkpoints" if (run / "checkpoints").is_dir() else run
    name = find(versions, version)[-1].name
    report = export_onnx(Scorer.from_version(versions, name), onnx, name)
    if as_json:
        sys.stdout.write(json_text(report) + "\n")
        return
    error = f"greatest difference from torch {report['greatest_error']:.1e}"
    console().print(f"{report['file']}: {report['bytes']:,} bytes, {name}; {error}")
    for given, width in report["inputs"].items():
        console().print(f"  {given}: (rows, {width})", highlight=False)
