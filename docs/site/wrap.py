"""Wraps the paragraphs and list items of Markdown pages that have a line of more than 120 characters.

    python docs/site/wrap.py PAGE...

Headings, tables and code stay as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = 120
_ITEM = re.compile(r"(\s*)([-*] |\d+\. )")
_FIXED = re.compile(r"#|\||<|!\[|    |\[\^")
# At the beginning of a line these words would begin a list, a heading or a quotation.
_MARKER = re.compile(r"([-+*>]|#+|\d+[.)])$")


def wrapped(text: str) -> str:
    """The page, wrapped where it is too wide."""
    blocks = _blocks(text.splitlines())
    return "\n".join(line for block, fixed in blocks for line in (block if fixed else _wrap(block))) + "\n"


def _blocks(lines: list[str]) -> Iterator[tuple[list[str], bool]]:
    """Paragraphs and list items; and, with True, single lines that stay as they are."""
    block: list[str] = []
    code = False
    for line in lines:
        fence = line.lstrip().startswith("```")
        apart = fence or code or not line.strip() or bool(_FIXED.match(line) and not block)
        if apart or _ITEM.match(line):
            if block:
                yield block, False
            block = []
        if apart:
            yield [line], True
        else:
            block.append(line)
        code ^= fence
    if block:
        yield block, False


def _wrap(block: list[str]) -> list[str]:
    if max(map(len, block)) <= WIDTH:
        return block
    item = _ITEM.match(block[0])
    first = item[0] if item else ""
    indent = " " * len(first)
    words: list[str] = []
    for word in " ".join([block[0][len(first) :], *block[1:]]).split():
        if words and _MARKER.match(word):
            words[-1] += f" {word}"
        else:
            words.append(word)
    lines, line = [], first + words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = indent + word
        else:
            line += f" {word}"
    return [*lines, line]


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(wrapped(page.read_text(encoding="utf-8")), encoding="utf-8")
