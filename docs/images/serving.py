"""Takes the picture of the live page: `python docs/images/serving.py RUN`, with a run of the online_retail example.

Serves the run, sends requests of the test days for a while, and writes serving.png beside this file. Needs chromium.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

HERE = Path(__file__).parent
ASKED_SECONDS = 20


def shoot(url: str, output: Path) -> None:
    """A picture of the page at an address."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1120,840"]
        flags += ["--virtual-time-budget=4000", f"--user-data-dir={profile}", f"--screenshot={output}"]
        subprocess.run([chromium, *flags, url], check=True, capture_output=True)


def main() -> None:
    """Serves, asks, shoots."""
    sys.path.insert(0, str(HERE.parents[1] / "examples" / "online_retail"))
    from serve_for_a_moment import invoices

    requests = invoices(np.random.default_rng(0))
    command = [sys.executable, "-m", "embtables", "serve", sys.argv[1], "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        end = time.monotonic() + ASKED_SECONDS
        with httpx.Client() as client:
            for number in range(10**6):
                if time.monotonic() >= end:
                    break
                request = requests[number % len(requests)]
                body = {"context": request["context"], "candidates": [str(item) for item in request["candidates"]]}
                client.post(f"{url}/v1/score", json=body).raise_for_status()
        shoot(f"{url}/#try", HERE / "serving.png")
        server.terminate()


if __name__ == "__main__":
    main()
