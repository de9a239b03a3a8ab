"""A run in the kernel of a notebook: progress in the cell, and the run shown as HTML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from jupyter_client.manager import start_new_kernel

from embtables.pipelines.trained.run_html import run_html
from tests.docs.quick_start import make_log_and_configuration

CELL = """
import embtables as et, pyarrow.parquet as pq
df = pq.read_table("log.parquet").to_pandas()
run = et.train(et.Schema.infer(df, label="click"), df, epochs=2, batch_size=512, log_every_steps=5)
run
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    make_log_and_configuration(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_cell_shows_progress_and_the_run(kernel: Any, tmp_path: Path) -> None:
    said: list[dict[str, Any]] = []
    reply = kernel.execute_interactive(CELL, output_hook=said.append, timeout=240)
    assert reply["content"]["status"] == "ok", reply["content"]
    shown = [each["content"]["data"]["text/html"] for each in said if each["msg_type"] == "display_data"]
    ends = [each["content"]["data"]["text/html"] for each in said if each["msg_type"] == "update_display_data"]
    assert [text for text in shown if "<b>epoch 1 of 2</b> <progress" in text]
    assert [text for text in ends if "epoch 2 of 2" in text and "rows/s" in text]
    (result,) = [each["content"]["data"]["text/html"] for each in said if each["msg_type"] == "execute_result"]
    assert "auc" in result
    assert result.count("<svg") == 2
    printed = "".join(each["content"]["text"] for each in said if each["msg_type"] == "stream")
    assert all(line.startswith("step ") for line in printed.splitlines())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "my.yaml"]


HISTORY = [
    {"step": 1, "part": "train", "loss": 0.7},
    {"step": 2, "part": "train", "loss": 0.6},
    {"step": 2, "part": "validation", "log_loss": 0.65, "auc": None},
    {"step": 2, "quarantined": {"x": 1}},
]


def test_the_page_is_well_formed_and_escaped() -> None:
    report = {"part": "test", "tables": {"<i>t": {"rows": 1200}}}
    page = run_html("<b>mine & yours", {"auc": 0.75, "gauc": None, "slices": {}}, report, HISTORY)
    root = ElementTree.fromstring(f"<div>{page}</div>")
    text = " ".join(root.itertext())
    assert "<b>mine & yours" in text
    assert "<i>t" in text
    assert "1,200 rows" in text
    assert "0.7500" in text
    assert "slices" not in text
    lines = [each for each in root.iter() if each.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 1]


def test_a_run_without_figures_has_no_charts() -> None:
    page = run_html("mine", {}, {}, [{"step": 1, "part": "train", "loss": 0.7}])
    assert "<svg" not in page
    assert "not evaluated" in page
