"""The server as a Ray Serve application: replicas of one app on a cluster, each of which follows the same folder.

    Ray Serve's proxy -> a replica: `create_app` as in one process -> its own tables, read from the shared folder

Rows never come through Ray: a replica follows its folder in a thread, as `embtables serve` does, so that no update
makes it unready and none is a deployment. A replica gets requests once it answers with a verified version. Replicas do
not see the folder at the same moment: a client that sends the last version it saw is never shown an older one.

One process is the better choice until one machine is too small: a request through Ray Serve costs milliseconds
(docs/serving.md has the figures). The admin routes are those of one process and are not deployed.

    serve run embtables.serving.ray_app:app source=/shared/runs/mine replicas=2
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from embtables.errors import ConfigError
from embtables.schema.base import Model, config_error
from embtables.serving.app import App, create_app
from embtables.serving.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

_LOOK_SECONDS = 0.05


class Replicas(Model):
    """How many replicas there are, and what each may use."""

    replicas: PositiveInt = Field(1, description="replicas, at least")
    max_replicas: PositiveInt | None = Field(None, description="Ray Serve adds replicas up to this many, by load")
    cpus: PositiveFloat = Field(1.0, description="cores of a replica, and its threads of scoring")
    requests_at_once: PositiveInt = Field(64, description="requests that are given to a replica at the same time")
    ready_seconds: PositiveFloat = Field(600.0, description="a replica without a version by then has failed")

    @model_validator(mode="after")
    def _check(self) -> Replicas:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, less than replicas, which is {self.replicas}")
        return self


def app(args: Mapping[str, Any]) -> Application:
    """The application for `serve run` and Ray Serve's configuration files.

    Args:
        args: fields of `Settings` and of `Replicas`, as text or values.

    Raises:
        ConfigError: one is unknown or wrong, or Ray Serve is not installed.
    """
    own = {name: value for name, value in args.items() if name in Replicas.model_fields}
    try:
        replicas = Replicas.model_validate(own, strict=False)
    except ValidationError as error:
        raise config_error(error) from None
    return application(Settings.read({k: v for k, v in args.items() if k not in own}), replicas)


def application(settings: Settings, replicas: Replicas | None = None) -> Application:
    """The same of settings that were read already.

    Raises:
        ConfigError: Ray Serve is not installed, or the settings ask for admin routes.
    """
    try:
        from ray import serve
    except ImportError:
        raise ConfigError("replicas need Ray Serve: pip install 'embtables[ray]'") from None
    if settings.admin_port is not None:
        raise ConfigError("replicas have no admin routes: leave admin_port out", argument="admin_port")
    wanted = Replicas() if replicas is None else replicas
    if settings.threads is None:
        settings = settings.model_copy(update={"threads": math.ceil(wanted.cpus)})
    of_load: dict[str, Any] = {"num_replicas": wanted.replicas}
    if wanted.max_replicas is not None:
        of_load = {"autoscaling_config": {"min_replicas": wanted.replicas, "max_replicas": wanted.max_replicas}}
    made = serve.ingress(lambda: WhenReady(create_app(settings), wanted.ready_seconds))(_Replica)
    deployment = serve.deployment(
        name="embtables",
        ray_actor_options={"num_cpus": wanted.cpus},
        max_ongoing_requests=wanted.requests_at_once,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        **of_load,
    )(made)
    bound: Application = deployment.bind()
    return bound


class _Replica:
    """What Ray Serve wraps the app in. It has no state: the app has all of it."""


class WhenReady:
    """An app whose start ends when it answers with a version, so that nobody asks it before.

    Args:
        seconds: how long that may take; then the start has failed.
    """

    def __init__(self, app: App, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """ASGI."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def when_ready(message: dict[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                message = await self._started(message)
            await send(message)

        await self._app(scope, receive, when_ready)

    async def _started(self, complete: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._seconds):
                while not self._app.service.is_ready()[0]:
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            reason = f"no version answers after {self._seconds:g} seconds: {self._app.service.is_ready()[1]}"
            return {"type": "lifespan.startup.failed", "message": reason}
        return complete
