"""Running features: columns of what happened before, one fold for a log that is prepared and for a server."""

from embtables.running.checkpoint import Checkpoint as Checkpoint
from embtables.running.checkpoint import read_checkpoint as read_checkpoint
from embtables.running.checkpoint import write_checkpoint as write_checkpoint
from embtables.running.features import RunningFeatures as RunningFeatures
from embtables.running.state import RunningCounts as RunningCounts
from embtables.running.state import RunningState as RunningState
