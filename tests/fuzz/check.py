"""One case: drawn, given to the oracle and to one of the trials, judged."""

from __future__ import annotations

import io
import shutil
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from embtables.errors import EmbtablesError
from tests.fuzz.drawn.draw import draw
from tests.fuzz.drawn.purchases import draw_purchases
from tests.fuzz.oracle.log import Oracle, Reading
from tests.fuzz.oracle.values import Unreadable
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError
from tests.fuzz.trials.evaluated import evaluate
from tests.fuzz.trials.examples import examples
from tests.fuzz.trials.frames import frames
from tests.fuzz.trials.predicted import predict
from tests.fuzz.trials.resumed import resume
from tests.fuzz.trials.rows import read
from tests.fuzz.trials.suggested import suggest
from tests.fuzz.trials.trained import train

FAULTS = ("traceback", "wrong rows", "needless refusal", "unclear message", "memory", "hang", "died")
_FLOOR = 96 << 20
# By the last digits of a case's number; all others are read.
_EVERY = 24
_TRIALS: dict[int, Callable[[Case], Verdict]] = {
    0: train,
    8: train,
    16: train,
    3: evaluate,
    15: evaluate,
    5: frames,
    11: frames,
    7: predict,
    19: predict,
    9: resume,
    21: resume,
    13: suggest,
    17: examples,
}
# Trials that compare two runs say little of a log that is refused: most of theirs hold no bad values.
_CLEAN = (evaluate, frames, predict, resume)


def check(seed: int, number: int, folder: Path) -> Verdict:
    """The verdict of a case; `folder` is made for it, and removed."""
    folder.mkdir(parents=True)
    trial = _TRIALS.get(number % _EVERY, read)
    try:
        if trial is examples:
            config = draw_purchases(seed, number, folder)
        else:
            config = draw(seed, number, folder, evaluates=trial is evaluate, clean=0.8 if trial in _CLEAN else 0.0)
        if "none" in config["writers"]:  # no writer can store it, so that nobody has such a log
            return Verdict("trained")
        size = sum(pq.ParquetFile(path).read().nbytes for path in (folder / "log").rglob("*.parquet"))
        before = _begin_of_peak()
        verdict = _judged(config, folder, trial, np.random.default_rng([seed, number, 1]))
        used = _peak() - before
        if used > 2 * size + _FLOOR and verdict.kind not in FAULTS:
            return Verdict("memory", f"{used >> 20} MB for a log of {size:,} bytes")
        return verdict
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(
    config: dict[str, Any], folder: Path, trial: Callable[[Case], Verdict], rng: np.random.Generator
) -> Verdict:
    try:
        wanted: Reading | str = Oracle(config, folder).read()
    except Unreadable as verdict:
        wanted = str(verdict)
    try:
        with redirect_stderr(io.StringIO()):
            return trial(Case(config, folder, wanted, rng))
    except EmbtablesError as error:
        return _refused(error, config, wanted)
    except WrongRowsError as error:
        return Verdict("wrong rows", str(error))
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "embtables" in f.filename and "site-packages" not in f.filename] or last[-1:]
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return Verdict("traceback", f"{type(error).__name__} at {where}: {' '.join(str(error).split())[:150]}")


def _refused(error: EmbtablesError, config: dict[str, Any], wanted: Reading | str) -> Verdict:
    message = " ".join(str(error).split())
    if not error.message.strip() or len(message) > 1500 or " object at 0x" in message:
        return Verdict("unclear message", message[:300])
    if isinstance(wanted, str):
        return Verdict("refused", message)
    place = (error.path.get("file"), error.path.get("row"))
    if place in wanted.bad:
        if config["data"].get("on_bad_row") == "quarantine":
            return Verdict("needless refusal", f"under quarantine: {message[:200]}")
        named = error.path.get("column") in wanted.bad[place]
        return Verdict("refused", message) if named else Verdict("unclear message", f"another column: {message[:200]}")
    # A small log may have a part without rows, of one class, or without a weight.
    if any(words in message for words in ("no rows", "bad", "holds only the label", "all sample weights")):
        return Verdict("refused", message)
    return Verdict("needless refusal", message[:250])


def _begin_of_peak() -> int:
    """Begins a new peak of this process's memory; what it uses now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024
