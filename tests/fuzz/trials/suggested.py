"""`data describe` and `init` on a drawn log: what they suggest is checked and trained, or they say why not."""

from __future__ import annotations

import json

from embtables.errors import EmbtablesError
from embtables.frames.suggest import Wishes
from embtables.pipelines.call import runs
from embtables.pipelines.check import check
from embtables.pipelines.describe import describe, starting_config
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError


def suggest(case: Case) -> Verdict:
    """The suggestion for label `y`."""
    log = str(case.folder / "log")
    file = case.folder / "suggested.yaml"
    try:
        json.dumps(describe(log, Wishes()), allow_nan=False)
        file.write_text(starting_config(log, Wishes(labels=("y",))))
    except EmbtablesError as error:  # it says why there is no suggestion
        return Verdict("refused", str(error))
    undivided: tuple[str, ...] = ()
    try:
        check(file, (), shown=False)
    except EmbtablesError as error:
        if "data.on_bad_row" in str(error):
            return Verdict("refused", str(error))
        # A small log may have a part without rows, of one class.
        if not any(words in str(error) for words in ("no rows", "holds only the label", "no row")):
            raise WrongRowsError(f"the suggestion is refused: {error}") from error
        undivided = ("data.split=null",)
    try:
        runs.train(file, overrides=undivided, max_steps=3, threads=1, shown=False)
    except EmbtablesError as error:
        if "data.on_bad_row" in str(error):
            return Verdict("refused", str(error))
        raise WrongRowsError(f"the suggestion does not train: {error}") from error
    return Verdict("trained")
