"""Each check of `embtables doctor` meets what it is for: made here on purpose, and named with its remedy."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from embtables.native import isa
from embtables.pipelines.config import RunConfig
from embtables.pipelines.doctor import examine, limits, processor, runtimes, versions
from embtables.pipelines.doctor.finding import Finding
from embtables.pipelines.plan import plan
from tests.pipelines.conftest import log_dir, make_config

__all__ = ["log_dir", "make_config"]


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Forces an instruction set."""

    def to(name: str) -> None:
        monkeypatch.setenv("EMBTABLES_ISA", name)
        isa.cache_clear()

    yield to
    monkeypatch.undo()
    isa.cache_clear()


def in_process(code: str, **environment: str) -> dict[str, Any]:
    """What a check finds in a process of its own."""
    script = "import json, resource\nfrom dataclasses import asdict\n"
    script += f"from embtables.pipelines.doctor import limits, runtimes\n{code}\nprint(json.dumps(asdict(found)))"
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_forced_instruction_set(force: Callable[[str], None]) -> None:
    assert processor.instruction_set().state == "ok"
    force("scalar")
    found = processor.instruction_set()
    if found.found.startswith("scalar, although"):
        assert (found.state, found.remedy) == ("warning", "unset EMBTABLES_ISA")
    force("altivec")
    found = processor.instruction_set()
    assert (found.state, found.remedy) == ("broken", "unset the variable")
    assert "received 'altivec'" in found.found


def test_huge_pages_that_are_off(tmp_path: Path) -> None:
    file = tmp_path / "enabled"
    assert "cannot be read" in processor.huge_pages(file).found
    for text, state in (("always [madvise] never\n", "ok"), ("always madvise [never]\n", "warning")):
        file.write_text(text)
        assert processor.huge_pages(file).state == state
    assert "echo madvise | " in processor.huge_pages(file).remedy


def test_packages_that_are_missing_or_of_another_version() -> None:
    found = versions.requirements(["numpy>=2", "numpy<1", "nothing-of-that-name>=1", "no-such-extra; extra == 'ray'"])
    assert found.state == "broken"
    assert "numpy is " in found.found
    assert "not <1; nothing-of-that-name is missing" in found.found
    assert "no-such-extra" not in found.found
    assert versions.requirements(["numpy; extra == 'ray'", "torch==2.13.0"]).state == "ok"
    assert any(line.startswith("torch==") for line in versions.asked_for())
    assert not any("ruff" in line for line in versions.asked_for())


def test_packages_beside_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock.txt"
    assert versions.lock(None).state == versions.lock(file).state == "ok"
    file.write_text("# a comment\nnumpy==1.0.0\ntorch==2.13.0\nnothing-of-that-name==3\n")
    found = versions.lock(file)
    assert (found.state, found.remedy) == ("warning", f"pip install --no-deps -r {file}")
    assert found.found.startswith("numpy is ")
    assert found.found.endswith(", not 1.0.0")
    assert "torch" not in found.found, "2.13.0+cpu is 2.13.0"


def another_runtime(own: str, folder: Path) -> Path:
    """A copy of a runtime that the loader does not take for it: of another name, inside and outside."""
    copy = folder / "libgomp-a1b2c3.so.1.0.0"
    content = Path(own).read_bytes()
    assert b"\0libgomp.so.1\0" in content
    copy.write_bytes(content.replace(b"\0libgomp.so.1\0", b"\0libgomp.so.9\0"))
    return copy


def test_a_second_openmp_runtime(tmp_path: Path) -> None:
    code = "found = runtimes.preloaded()"
    copy = another_runtime(in_process(code)["found"], tmp_path)
    found = in_process(code, LD_PRELOAD=str(copy))
    assert found["state"] == "broken"
    assert str(copy) in found["found"]
    assert "LD_PRELOAD" in found["remedy"]


def test_imports_that_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = another_runtime(in_process("found = runtimes.preloaded()")["found"], tmp_path)
    (tmp_path / "brings_one.py").write_text(f"import ctypes\nctypes.CDLL({str(second)!r})\n")
    (tmp_path / "crashes.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    orders = [("torch", "embtables.native"), ("brings_one", "torch"), ("torch", "no_such_module"), ("crashes",)]
    good, doubled, missing, crashed = runtimes.import_orders(orders)
    assert (good.state, good.found) == ("ok", "one OpenMP runtime")
    assert (doubled.state, doubled.found.count("libgomp")) == ("broken", 2)
    assert "import torch first" in doubled.remedy
    assert (missing.state, missing.found) == ("broken", "ModuleNotFoundError: No module named 'no_such_module'")
    assert (crashed.state, crashed.found) == ("broken", "ended by signal 11")


@pytest.mark.parametrize(
    ("limit", "value", "check", "state", "remedy"),
    [
        ("RLIMIT_NOFILE", 1_000, "open_files", "warning", "ulimit -n "),
        ("RLIMIT_NOFILE", 200, "open_files", "broken", "ulimit -n "),
        ("RLIMIT_FSIZE", 10**9, "file_size", "warning", "ulimit -f unlimited"),
        ("RLIMIT_AS", 10**12, "address_space", "warning", "ulimit -v unlimited"),
    ],
)
def test_limits(limit: str, value: int, check: str, state: str, remedy: str) -> None:
    code = f"resource.setrlimit(resource.{limit}, ({value}, resource.getrlimit(resource.{limit})[1]))\n"
    found = in_process(code + f"found = limits.{check}()")
    assert found["state"] == state
    assert found["remedy"].startswith(remedy)
    assert found["why"]
    if limit == "RLIMIT_NOFILE":
        low = in_process(f"resource.setrlimit(resource.{limit}, ({value}, {value}))\nfound = limits.{check}()")
        assert "limits.conf" in low["remedy"]
    elif resource.getrlimit(getattr(resource, limit))[0] == resource.RLIM_INFINITY:
        assert getattr(limits, check)().state == "ok"


def make_machine(folder: Path, available_kb: int, group: str, **files: str) -> tuple[Path, Path]:
    """/proc and /sys/fs/cgroup of a machine."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available_kb} kB\n")
    (proc / "self" / "cgroup").write_text(f"0::{group}\n")
    (groups / group.lstrip("/")).mkdir(parents=True)
    for name, text in files.items():
        (groups / group.lstrip("/") / name.replace("__", ".")).write_text(text)
    return proc, groups


def test_free_memory_is_what_machine_and_container_leave(tmp_path: Path) -> None:
    assert limits.free_memory(*make_machine(tmp_path / "a", 2_000, "/")) == 2_000 * 1024
    files = {"memory__max": "max", "memory__current": "5"}
    assert limits.free_memory(*make_machine(tmp_path / "b", 2_000, "/", **files)) == 2_000 * 1024
    stat = "anon 10\ninactive_file 300000\n"
    files = {"memory__max": "1000000\n", "memory__current": "500000\n", "memory__stat": stat}
    machine = make_machine(tmp_path / "c", 2_000, "/user/run", **files)
    assert limits.free_memory(*machine) == 1_000_000 - (500_000 - 300_000)
    (machine[1] / "user" / "memory.max").write_text("90000")
    assert limits.free_memory(*machine) == 90_000, "that of the group above is less"
    assert limits.free_memory() > 0
    assert limits.memory(10**10).state == "ok"
    assert limits.memory(10**8).state == "warning"


def test_free_memory_beside_the_plan(make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the doctor times nothing: that takes minutes on a busy machine")

    monkeypatch.setattr(plan, "calibrate", refuse)
    assert limits.memory(10**12, make_config()).state == "ok"
    found = limits.memory(10**6, make_config())
    assert found.state == "broken"
    assert re.match(r"0.00 GB free, the run needs \d\.\d\d GB$", found.found)
    assert "does not fit" in found.remedy


def test_the_command_names_everything_and_fails_if_something_is_broken(
    command: Callable[..., tuple[int, str, str]], force: Callable[[str], None]
) -> None:
    force("altivec")
    status, out, _ = command("doctor", "--json")
    report = json.loads(out.splitlines()[-1])
    assert (status, report["healthy"]) == (1, False)
    assert report["broken"] == sum(finding["state"] == "broken" for finding in report["findings"]) >= 1
    checks = [finding["check"] for finding in report["findings"]]
    assert checks[:2] == ["instruction set", "huge pages"]
    assert {"packages", "lock", "OpenMP runtimes", "open files", "memory"} <= set(checks)
    for finding in report["findings"]:
        assert finding["state"] == "ok" or (finding["why"] and finding["remedy"]), finding
    assert command("doctor", "--set", "train.epochs=1")[0] == 2
    assert command("doctor", "no/such.yaml")[0] == 2


def test_warnings_do_not_fail_and_are_shown_whole(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Finding("huge pages", "warning", "never [x]", "it is slow", "echo " + "y" * 90)
    monkeypatch.setattr(examine, "examine", lambda config: [slow, Finding("memory", "ok", "1 GB free")])
    status, out, err = command("doctor")
    assert (status, out) == (0, "")
    assert "never [x]" in err
    assert "it is slow." in err
    assert err.count("y") >= 90
    assert examine.report([slow]) == {"healthy": True, "ok": 0, "warning": 1, "broken": 0, "findings": [asdict(slow)]}
