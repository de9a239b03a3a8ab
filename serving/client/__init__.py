"""A client of the server: typed calls, a deadline for each, retries of what is safe. Without torch.

exchanges  what each call sends and what it makes of the answer; knows no connection
retries    which failures are tried again, and when
transport  connections of threads, with a deadline for all of a call
threads    `Client`
coroutines `AsyncClient`
"""

from embtables.serving.client.coroutines import AsyncClient as AsyncClient
from embtables.serving.client.exchanges import Posted as Posted
from embtables.serving.client.exchanges import Scores as Scores
from embtables.serving.client.threads import Client as Client
