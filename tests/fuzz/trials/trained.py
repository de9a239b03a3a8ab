"""A whole training run: how many rows it was made of."""

from __future__ import annotations

from embtables.pipelines.call import runs
from tests.fuzz.trials.case import Case, Verdict, WrongRowsError, need


def train(case: Case) -> Verdict:
    """See the module."""
    wanted = case.wanted
    report = runs.train(case.folder / "config.yaml", runs_dir=case.folder / "runs", shown=False).report()
    if isinstance(wanted, str):
        if wanted.startswith("null_id"):
            return Verdict("trained")
        raise WrongRowsError(f"trained {report['rows']} rows, but {wanted}")
    split = case.data.get("split")
    if split is None or split["kind"] != "hash":
        rows = [row for row in wanted.rows if row.part in (None, "train")]
        need("rows trained", report["rows"], len(rows))
    if split is None and "parts" not in case.data:
        need("rows set aside", report["quarantined_rows"], len(wanted.bad))
    return Verdict("trained")
