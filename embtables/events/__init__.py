"""The event log: what was served and what users did, appended durably and read in order."""

from embtables.events.open import folder_of as folder_of
from embtables.events.open import open_log as open_log
from embtables.events.protocol import Entry as Entry
from embtables.events.protocol import EventLog as EventLog
from embtables.events.protocol import Positions as Positions
