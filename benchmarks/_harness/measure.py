"""What every benchmark shares: contenders in their own processes, the machine named, one section of RESULTS.md each.

A benchmark is `python -m benchmarks.NAME [--quick] [--json]`. It starts each contender as a process that prints one
JSON object last on stdout, interleaves the repeats so that a slow minute of the machine hits all alike, and calls
`finish`, which prints the result and, without `--quick`, rewrites the benchmark's own section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PACKAGES = ("numpy", "pyarrow", "torch", "torchrec", "fbgemm-gpu-cpu")
ISA_FLAGS = ("avx2", "bmi2", "avx512f", "avx512bw", "avx512dq", "avx512vl")
HEADER = (
    "# Measured results\n\n"
    "Each section is written by the command it names, unless it says that it was written by hand.\n"
)


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the repeats of one figure."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(median(values), min(values), max(values))

    def text(self, form: str) -> str:
        """Median (least..greatest), each in a format such as `.4f`."""
        return f"{self.median:{form}} ({self.low:{form}}..{self.high:{form}})"


def parser(description: str | None) -> argparse.ArgumentParser:
    """The two options every benchmark has; a benchmark adds its own."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="few repeats on little data; RESULTS.md stays as it is")
    options.add_argument("--json", action="store_true", help="one JSON object last on stdout, the table on stderr")
    return options


def interleave(
    commands: Mapping[str, Sequence[str]],
    repeats: int,
    env: Mapping[str, str] | None = None,
    timeout_seconds: int = 600,
) -> dict[str, list[dict[str, Any]]]:
    """Run every command `repeats` times, one process at a time, in rounds; {name: its JSON objects, in order}.

    Each round starts with another contender, so that none always runs first. A contender that needs an environment
    of its own starts with `env NAME=value`.

    Raises:
        RuntimeError: a contender failed; holds its standard error.
    """
    names = list(commands)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(repeats):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(_run(name, commands[name], timeout_seconds))
    return found


def _run(name: str, argv: Sequence[str], timeout_seconds: int) -> dict[str, Any]:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    if done.returncode:
        raise RuntimeError(f"contender {name!r} ended with status {done.returncode}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_memory_mib() -> float:
    """Greatest resident memory of this process so far, MiB (ru_maxrss would count the parent's across exec)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def machine() -> dict[str, Any]:
    """What a figure depends on: processor, cores, instruction sets, versions, commit, date."""
    cpu = Path("/proc/cpuinfo").read_text()
    flags = set(_field(cpu, "flags").split())
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _field(cpu, "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
        "versions": versions,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _field(cpuinfo: str, name: str) -> str:
    lines = [line for line in cpuinfo.splitlines() if line.split(":")[0].strip() == name]
    return lines[0].split(":", 1)[1].strip() if lines else "unknown"


def _commit() -> str:
    """Short hash of HEAD, with `+changes` where tracked files outside RESULTS.md differ from it."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    changes = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", ".", f":!{RESULTS.relative_to(ROOT)}"], check=False
    ).returncode
    return head.stdout.strip() + ("+changes" if changes else "")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_section(name: str, markdown: str, path: Path = RESULTS) -> None:
    """Put `markdown` between `<!-- begin NAME -->` and `<!-- end NAME -->`; a new section goes to the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{markdown.strip()}\n{end}"
    text = path.read_text() if path.exists() else HEADER
    if begin in text:
        before, rest = text.split(begin, 1)
        text = before + section + rest.split(end, 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    whole = path.with_suffix(".tmp")
    whole.write_text(text)
    whole.replace(path)


def finish(
    name: str,
    title: str,
    result: dict[str, Any],
    markdown: str,
    args: argparse.Namespace,
    command: str | None = None,
) -> None:
    """Print the result with the machine named; without `--quick` also rewrite the section `name` of RESULTS.md.

    `command`: what follows `python -m benchmarks.` to measure this; by default the name.
    """
    where = machine()
    versions = ", ".join(f"{package} {version}" for package, version in where["versions"].items())
    about = (
        f"`python -m benchmarks.{command or name}` on {where['cpu']}, {where['cores']} cores, "
        f"{' '.join(where['isa'])}; "
        f"{versions}; commit {where['commit']}, {where['date']}."
    )
    text = f"## {title}\n\n{about}\n\n{markdown.strip()}\n"
    print(text, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps({"benchmark": name, "machine": where, **result}))
    if not args.quick:
        write_section(name, text)
