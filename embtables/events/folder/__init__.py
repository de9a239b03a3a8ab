"""`FolderLog`: the event log in a folder of a local disk, without a server."""

from embtables.events.folder.log import FolderLog as FolderLog
