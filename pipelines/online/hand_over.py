"""Where a new run on events begins that goes on from a former one (`--from`): each event is used by one of them.

former run on the files of a log -> impressions after the newest event time that it was trained on
former run on the same events    -> what follows its position, with the impressions that were open there
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from embtables.errors import ConfigError
from embtables.inputs.times import moment_us
from embtables.pipelines.config import RunConfig
from embtables.pipelines.progress import say
from embtables.pipelines.training.checkpoint import ReaderFiles
from embtables.pipelines.training.run_content import RunState
from embtables.pipelines.training.start.continue_from import FormerCheckpoint
from embtables.schema import EventSamples


def hand_over(
    config: RunConfig, state: RunState, origin: FormerCheckpoint | None, *, shown: bool
) -> ReaderFiles | None:
    """Sets in the state of a new run on events where it begins.

    Returns:
        The files of the readers whose position it goes on from; None: it begins with the oldest event of the log.

    Raises:
        ConfigError: the former run was trained on a row of the future.
    """
    events = _events(config)
    if events.begin_after is not None:
        state.begin_after_us = moment_us(events.begin_after)
    elif origin is None:
        return None
    elif _reads_on(config, origin):
        state.position, state.begin_after_us = origin.state.position, origin.state.begin_after_us
        if shown:
            say("going on in the event log where the former run stood")
        return origin.reader_files
    else:
        state.begin_after_us = _newest(origin)
    if shown and state.begin_after_us is not None:
        say(f"impressions after {_shown(state.begin_after_us)} give samples: the former run had those before")
    elif shown:
        say("the former run does not say which event times it was trained on: all impressions of the log give samples")
    return None


def _events(config: RunConfig) -> EventSamples:
    assert config.online is not None and config.online.events is not None, "a run on events has them"
    return config.online.events


def _reads_on(config: RunConfig, origin: FormerCheckpoint) -> bool:
    """Whether the former run joined the events of the same log in the same way."""
    was, state = origin.config.online, origin.state
    if state.kind != "events" or state.position is None or was is None or was.events is None:
        return False
    return _joining(was.events) == _joining(_events(config))


def _joining(events: EventSamples) -> dict[str, Any]:
    """What open impressions depend on."""
    return events.model_dump(include={"log", "item", "actions", "window_seconds", "late_window_seconds"})


def _newest(origin: FormerCheckpoint) -> int | None:
    newest = origin.state.newest_event_us
    if newest is not None and newest > moment_us(datetime.now(UTC)):
        raise ConfigError(
            f"the former run was trained on a row of {_shown(newest)}, which is in the future, so it does not say "
            "which events it had: set online.events.begin_after"
        )
    return newest


def _shown(time_us: int) -> str:
    return f"{np.datetime64(time_us, 'us')}Z"
