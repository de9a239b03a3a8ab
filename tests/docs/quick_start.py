"""The quick start's blocks, for the tests that run them or begin where it ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "quick-start.md"


def blocks(language: str, page: Path = PAGE) -> list[str]:
    """The code blocks of a page in one language, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run_block(code: str, names: dict[str, Any]) -> None:
    """Runs a block of Python as a reader would, after those before it."""
    exec(compile(code, str(PAGE), "exec"), names)


def make_log_and_configuration(folder: Path) -> None:
    """`log.parquet` and `my.yaml` in the working folder, which `folder` is."""
    run_block(blocks("python")[0], {})
    (configuration,) = blocks("yaml")
    (folder / "my.yaml").write_text(configuration)
