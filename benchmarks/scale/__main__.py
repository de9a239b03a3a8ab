"""`python -m benchmarks.scale [--measure]`: writes the figures of docs/scale.md, 10^11 rows on 1,024 ranks.

Nothing here is measured but the constants of the machine, which lie beside the page; `--measure` measures them again.
"""

from __future__ import annotations

import argparse

from benchmarks import _harness
from benchmarks.scale import page


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--measure", action="store_true", help="measure this machine's constants again")
    if options.parse_args().measure or not page.CONSTANTS.exists():
        page.measure()
    for name, make in page.SECTIONS.items():
        text = make()
        print(f"{name}\n\n{text}\n")
        _harness.write_section(name, text, page.PAGE)


if __name__ == "__main__":
    main()
