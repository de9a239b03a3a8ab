"""Contenders that stay alive and take turns: each in a process of its own, asked for one measurement at a time.

A worker reads one JSON object a line from stdin and answers with one JSON object a line on stdout. While one works, the
others wait, so that a slow minute of the machine hits all alike, and what takes long to build is built once.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks._harness import measure

# OpenMP's threads spin for some milliseconds after their work is done, on the cores that the next contender needs.
PAUSE_SECONDS = 0.03


class Contender:
    """A worker process."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.built: dict[str, Any] = {}
        self._process = subprocess.Popen(
            argv, cwd=measure.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, question: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Its answer. Raises RuntimeError where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            if question is not None:
                self._process.stdin.write(json.dumps(question) + "\n")
                self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"contender {self.name!r} ended with status {self._process.wait()}; see stderr")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@contextlib.contextmanager
def contenders(
    commands: Mapping[str, Sequence[str]], env: Mapping[str, Mapping[str, str]]
) -> Iterator[list[Contender]]:
    """Starts every command, one after the other, and waits for each one's first line; ends them all afterwards."""
    started: list[Contender] = []
    try:
        for name, argv in commands.items():
            started.append(Contender(name, argv, env.get(name)))
            started[-1].built = started[-1].ask()
        yield started
    finally:
        for contender in started:
            contender.close()


def take_turns(
    group: Sequence[Contender], question: Mapping[str, Any], repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """Every contender's answers, one warm-up round left out; each round starts with another."""
    answers: dict[str, list[dict[str, Any]]] = {c.name: [] for c in group}
    for turn in range(repeats + 1):
        for place in range(len(group)):
            contender = group[(turn + place) % len(group)]
            time.sleep(PAUSE_SECONDS)
            answer = contender.ask(question)
            if turn:
                answers[contender.name].append(answer)
    return answers


def serve(built: Mapping[str, Any], work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A worker's loop: says that it is built, then answers until stdin ends."""
    print(json.dumps(built), flush=True)
    for line in sys.stdin:
        print(json.dumps(work(json.loads(line))), flush=True)
