"""`embtables serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embtables.pipelines.cli.options import Json
from embtables.pipelines.json_text import json_text

if TYPE_CHECKING:
    from embtables.serving import wire
    from embtables.serving.http.run import Addresses

Source = Annotated[
    Path | None,
    typer.Argument(metavar="RUN_OR_FOLDER", help="A run, or the folder its serving versions are published to."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting, such as max_candidates=500."),
]


def serve(
    source: Source = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="By default 8080; 0: any free one.")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="Of the admin routes; needs EMBTABLES_SERVE_ADMIN_TOKENS.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Native threads of scoring; by default as many as cores.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="exact: scores as predict has them; fast: the fastest engine within a bound.")
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Event log for /v1/events: folder:///path, redis://..., kafka://..."),
    ] = None,
    log_served: Annotated[
        bool | None, typer.Option("--log-served", help="With --events: log what is answered as impressions.")
    ] = None,
    set_: Setting = None,
    as_json: Json = False,
) -> None:
    """Answer scores and embeddings over HTTP, and follow the versions that training publishes.

    Settings are also read from EMBTABLES_SERVE_<NAME>; docs/serving.md lists them. SIGTERM ends it when what was asked
    is answered.

    Example: embtables serve runs/online_retail-... --port 8080
    Example: embtables serve runs/online_retail-... --events folder:///var/lib/events --log-served
    Example: EMBTABLES_SERVE_ADMIN_TOKENS=$(openssl rand -hex 32) embtables serve published --admin-port 8081
    """
    from embtables.errors import ConfigError
    from embtables.serving.http.run import serve as run_server
    from embtables.serving.settings import Settings

    flags: dict[str, Any] = {}
    for text in set_ or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set takes NAME=VALUE, received '{text}'")
        flags[name] = value
    given = {"source": source, "host": host, "port": port, "admin_port": admin_port, "threads": threads, "mode": mode}
    given |= {"events": events, "log_served": log_served}
    settings = Settings.read(flags | {name: value for name, value in given.items() if value is not None})

    def started(addresses: Addresses) -> None:
        if not as_json:
            sys.stderr.write(f"{addresses.url}  listening; a version is being loaded\n")

    def ready(addresses: Addresses, info: wire.ModelInfo) -> None:
        if as_json:
            report = {"url": addresses.url, "admin_url": addresses.admin_url, "version": info.versions.dense}
            sys.stdout.write(json_text(report) + "\n")
            sys.stdout.flush()
            return
        rows = sum(table.rows for table in info.tables)
        sys.stderr.write(
            f"{addresses.url}  answers with {info.versions.dense} ({rows:,} rows, {info.engine.name}); page at /\n"
        )
        if addresses.admin_url is not None:
            sys.stderr.write(f"{addresses.admin_url}  admin routes\n")

    run_server(settings, on_start=started, on_ready=ready)
