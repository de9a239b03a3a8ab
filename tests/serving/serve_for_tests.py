"""A real server process over `ScorerService`: `python -m tests.serving.serve_for_tests RUN [name=value ...]`.

Prints one JSON line with its addresses when it accepts connections.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from embtables.errors import EmbtablesError
from embtables.serving.http.run import Addresses, serve
from embtables.serving.settings import Settings
from tests.serving.scorer_service import ScorerService


def _started(addresses: Addresses) -> None:
    print(json.dumps({"url": addresses.url, "admin_url": addresses.admin_url}), flush=True)


def main() -> None:
    run, *flags = sys.argv[1:]
    settings = Settings.read({"source": run, **dict(flag.split("=", 1) for flag in flags)})
    try:
        serve(settings, service=ScorerService(Path(run)), on_start=_started)
    except EmbtablesError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_status) from None


if __name__ == "__main__":
    main()
