"""The server as an ASGI application: `embtables.serving.app:create_app`."""

from embtables.serving.http.app import App as App
from embtables.serving.http.app import create_app as create_app

__all__ = ["App", "create_app"]
