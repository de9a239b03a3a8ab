"""`Warnings`: what a user should look at although nothing failed; said once each, and listed in the report."""

from __future__ import annotations

from collections.abc import Iterable

from embtables.pipelines.progress import say


class Warnings:
    """Sentences, each once.

    Args:
        texts: those that were said before; more are appended to this list.
        shown: whether they are written to stderr; otherwise they are in the report alone.
    """

    def __init__(self, texts: list[str], *, shown: bool) -> None:
        self.texts = texts
        self._shown = shown

    def add(self, texts: Iterable[str]) -> None:
        """Says those that are new."""
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
                if self._shown:
                    say(f"warning: {text}")
