"""`embtables inspect`: what it says of a run, and that its page draws itself and asks nobody for anything."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embtables.pipelines.config import RunConfig
from embtables.pipelines.run_dir import RunDir
from embtables.pipelines.trained.load_run import load_run
from embtables.pipelines.training.train import train

Make = Callable[..., RunConfig]
Outcome = tuple[int, str, str]
CHROMIUM = shutil.which("chromium")

# Put into a copy of the page: what went wrong, what was loaded and what the policy kept from being loaded.
WATCH = """<script>
const seen = {errors: [], refused: [], loaded: []};
addEventListener("error", (event) => seen.errors.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.refused.push(event.blockedURI));
setTimeout(() => {
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  document.body.append(Object.assign(document.createElement("pre"), {id: "seen", textContent: JSON.stringify(seen)}));
}, 3000);
</script>"""


@pytest.fixture
def run(make_config: Make) -> Path:
    table = {"dim": 8, "optimizer": {"kind": "adagrad", "learning_rate": 0.1}}
    tables = [
        {"name": "user", **table, "max_rows": 35},
        {"name": "item", "num_rows": 64, **table},
        {"name": "b", "num_rows": 64, **table},
    ]
    features = [
        {"name": "user", "table": "user"},
        {"name": "item", "table": "item"},
        {"name": "tags", "table": "b", "max_length": 3, "pooling": "mean", "encoder": {"kind": "identity"}},
    ]
    changes = {"tables": tables, "features": features, "train.epochs": 1, "train.checkpoint_every_steps": 3}
    return Path(train(make_config(**changes), shown=False)["run_dir"])


@pytest.fixture
def inspect(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    return partial(command, "inspect")


def test_json_has_what_the_tables_of_the_run_hold(run: Path, inspect: Callable[..., Outcome]) -> None:
    status, out, _ = inspect(run, "--json", "--top", 4)
    assert status == 0
    found = json.loads(out.splitlines()[-1])
    loaded = load_run(RunDir.open(run), "last")
    tables = loaded.scorer.tables
    assert found["kind"] == "delta"
    assert found["chain"][-1] == found["version"]
    assert found["step"] == loaded.step
    files = {f for name in found["chain"] for f in (run / "checkpoints" / "versions").glob(_folder(name) + "/*")}
    assert found["bytes"] == sum(f.stat().st_size for f in files)
    assert [t["table"] for t in found["tables"]] == ["b", "item", "user"]
    for table in found["tables"]:
        content = tables.content()[table["table"]]
        assert table["rows"] == len(content.keys)
        assert table["never_updated"] == np.mean(content.counts == 0)
        assert [top["count"] for top in table["top"]] == sorted(content.counts.tolist(), reverse=True)[:4]
        assert table["norm"]["quantiles"]["greatest"] == pytest.approx(
            np.linalg.norm(content.columns["weight"], axis=1).max(), rel=1e-6
        )
    by_name = {t["table"]: t for t in found["tables"]}
    assert {top["id"] for top in by_name["user"]["top"]} <= set(range(40))
    assert by_name["user"]["admission"]["policy"]["max_rows"] == 35
    assert by_name["user"]["admission"]["full"] == by_name["user"]["rows"] / 35
    assert by_name["b"]["collisions"]["sharing_a_row"] == 0.0
    assert by_name["item"]["collisions"]["ids"] == pytest.approx(30, rel=0.2)


def _folder(version: str) -> str:
    purpose, _, number = version.partition("-")
    return f"{purpose}-{int(number):010d}-*"


def test_a_terminal_of_80_columns_takes_it(run: Path, inspect: Callable[..., Outcome]) -> None:
    status, out, err = inspect(run, "--table", "user", "--table", "item", "--version", "resume-2")
    assert (status, out) == (0, "")
    lines = err.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "resume-2, step 6"
    assert lines[1].startswith("delta on resume-1, written ")
    for text in ("user  ", "item  ", "of ids share a row", "top ids by count", "top rows by count", "age (steps)", "█"):
        assert text in err
    assert "\nb  " not in err
    assert "since the version before" in err
    assert "since the version before" not in inspect(run, "--version", "resume-1")[2]


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--table", "nope"], 1, "error: version resume-6: has no table 'nope'; it has: b, item, user"),
        (["--version", "nope"], 2, "error: 'nope' is not a version: give resume-<n>, serving-<n>, best"),
        (["--version", "resume-77"], 1, "there is no version resume-77"),
        (["--html", "no/such/folder/page.html"], 1, "error: file no/such/folder/page.html: cannot be written: No such"),
    ],
)
def test_mistakes_are_reported_in_a_line(
    run: Path, arguments: list[str], status: int, text: str, inspect: Callable[..., Outcome]
) -> None:
    newest = sorted((run / "checkpoints" / "manifests").iterdir())[-1].stem
    got, out, err = inspect(run, *arguments)
    assert (got, out) == (status, "")
    assert text.replace("resume-6", f"resume-{int(newest.rpartition('-')[2])}") in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_is_no_run(tmp_path: Path, inspect: Callable[..., Outcome]) -> None:
    status, _, err = inspect(tmp_path)
    assert status == 2
    assert err == (f"error: folder {tmp_path}: has no versions: there is no manifests/ in it or in its checkpoints/\n")


@pytest.mark.parametrize("file", ["user.rows.0.arrow", "tables.safetensors"])
def test_a_damaged_file_is_named_and_no_page_is_left(run: Path, file: str, inspect: Callable[..., Outcome]) -> None:
    damaged = sorted((run / "checkpoints" / "versions").glob(f"*/{file}"))[-1]
    raw = bytearray(damaged.read_bytes())
    raw[len(raw) // 2] ^= 1
    damaged.write_bytes(raw)
    page = run / "page.html"
    page.write_text("the page of yesterday")
    status, out, err = inspect(run, "--html", page, "--json")
    assert (status, out) == (1, "")
    assert err == f"error: file {damaged}: is damaged: its checksum is not the one recorded\n"
    assert page.read_text() == "the page of yesterday"


def test_a_disk_that_takes_no_page_leaves_the_old_one(
    run: Path, monkeypatch: pytest.MonkeyPatch, inspect: Callable[..., Outcome]
) -> None:
    page = run / "page.html"
    page.write_text("the page of yesterday")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("embtables.pipelines.run_dir.os.fsync", full)
    status, _, err = inspect(run, "--html", page)
    assert (status, err) == (1, f"error: file {page}: cannot be written: No space left on device\n")
    assert page.read_text() == "the page of yesterday"
    assert not list(run.glob(".page*"))


def rendered(page: Path, profile: Path) -> tuple[str, dict[str, list[str]]]:
    """The page's document after its scripts ran, and what they were seen to do."""
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    flags += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    done = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, timeout=120, check=True)
    (seen,) = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout)
    return done.stdout, json.loads(html.unescape(seen))


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_the_page_draws_its_charts_and_asks_nobody(run: Path, tmp_path: Path, inspect: Callable[..., Outcome]) -> None:
    status, out, _ = inspect(run, "--html", tmp_path / "page.html", "--json")
    assert status == 0
    tables = json.loads(out)["tables"]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    watched = tmp_path / "watched.html"
    watched.write_text(text.replace("<title>", WATCH + "<title>"), encoding="utf-8")
    document, seen = rendered(watched, tmp_path / "profile")
    assert seen == {"errors": [], "refused": [], "loaded": []}
    for number, table in enumerate(tables):
        shown = [table[name] for name in ("age", "count", "norm") if table[name] is not None]
        for place, values in enumerate(shown):
            (chart,) = re.findall(rf'<div id="chart{number}-{place}".*?</svg>', document, re.DOTALL)
            bars = re.findall(
                r'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="bar" d="([^"]*)"', chart
            )
            assert len(bars) == len(values["bins"])
            for (label, outline), bin_ in zip(bars, values["bins"], strict=True):
                assert f"rows: {bin_['rows']};" in label.replace(",", "")
                # A bar is as wide as its bin, and has a height where rows are in it.
                width, height = re.fullmatch(r"M[^h]*h([\d.]+)v([\d.]+)h-[\d.]+Z", outline).groups()  # type: ignore[union-attr]
                assert float(width) > 1.0
                assert (float(height) > 0.0) == (bin_["rows"] > 0)
    # What the watch would have said, had the page asked for something.
    tag = '<img src="http://127.0.0.1:9/picture.png">'
    watched.write_text(watched.read_text(encoding="utf-8").replace("<header>", tag + "<header>"), encoding="utf-8")
    assert rendered(watched, tmp_path / "profile")[1]["refused"] == ["http://127.0.0.1:9/picture.png"]


def test_the_page_names_no_address_to_load_from(run: Path, tmp_path: Path, inspect: Callable[..., Outcome]) -> None:
    assert inspect(run, "--html", tmp_path / "page.html")[0] == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    outside_scripts = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)|url\(|@import|<link", outside_scripts)
    assert [p.name for p in tmp_path.glob("*page*")] == ["page.html"]
