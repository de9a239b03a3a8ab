"""`embtables state publish`: a version of a run as the next version for servers in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embtables.errors import EmbtablesError, StateError
from embtables.models.version_content import OF_TRAINING, Published, scoring_content, step_of
from embtables.pipelines.prepare.side_tables import candidate_key, published_side_tables
from embtables.pipelines.run_dir import CONFIG_FILE, RunDir
from embtables.state.folder.version_folder import MANIFESTS, LeaseHolder, NewFile, StateFolder
from embtables.state.format.manifest import Manifest, hash_of
from embtables.state.format.side_file import SideFile
from embtables.state.format.weight_dtype import WeightDtype
from embtables.state.read.find import find
from embtables.state.read.saved_version import open_folder
from embtables.state.write.merged_snapshot import copied_side_files
from embtables.state.write.published_snapshot import write_published_snapshot


def publish(
    run: Path, to: Path, version: str | None, dtype: WeightDtype, *, keep: int, with_side_tables: bool
) -> dict[str, Any]:
    """Writes a version as the next snapshot of a folder's versions for servers; the folder is made if need be.

    Args:
        run: the folder of a run, or of versions.
        to: the folder to write to: of versions, or of a run.
        version: `best`, `last`, or its name; by default the best one if there is one, else the last.
        keep: newest versions for servers that stay in the folder.
        with_side_tables: whether what a server joins to requests is made from the run's configuration, or taken from
            its newest version for servers.

    Raises:
        ConfigError: there are no versions at `run`, or `version` is not the name of one.
        StateError: there is no such version, it is damaged, or a weight cannot be published; the folder has versions of
            another schema; the side tables cannot be made; or the folder cannot be written.
    """
    source = open_folder(run)
    chain = find(source.folder, version)
    content, files = _content(run, source, chain, with_side_tables=with_side_tables)
    own = to / "checkpoints"
    target = StateFolder(own if (own / MANIFESTS).is_dir() else to)
    with LeaseHolder(target) as holder:
        _need_same_schema(target, content)
        made = write_published_snapshot(holder, source, chain, dtype, content, files)
        freed = holder.collect({"serving": keep})
    return {
        "version": made.name,
        "folder": str(target.folder.root),
        "from": chain[-1].name,
        "dtype": dtype,
        "rows": {table: made.rows_of(table, "rows") for table in made.tables},
        "errors": {table: entry.error.model_dump() for table, entry in made.tables.items() if entry.error is not None},
        "side_tables": [of["name"] for of in content["side_tables"]],
        "bytes": sum(f.bytes for f in made.files.values()),
        "freed_bytes": freed,
    }


def _content(
    run: Path, source: StateFolder, chain: list[Manifest], *, with_side_tables: bool
) -> tuple[dict[str, Any], dict[str, NewFile]]:
    """The content of the new version, and the files of its side tables."""
    last = chain[-1]
    scoring = scoring_content(last)
    trained = last.content.get(OF_TRAINING)
    if scoring.published is not None:
        published = scoring.published.model_copy(update={"version": last.name})
    else:
        named = run.resolve().parent.name if run.name == "checkpoints" else run.resolve().name
        published = Published(run=named, step=step_of(last) or 0, version=last.name)
    content = {k: v for k, v in last.content.items() if k != OF_TRAINING}
    content |= {"published": published.model_dump(mode="json"), "side_tables": []}
    if isinstance(trained, dict):
        content["id_kinds"] = trained.get("id_kinds", {})
    if not with_side_tables:
        return content, {}
    if last.purpose == "serving":
        return content | {"side_tables": last.content.get("side_tables", [])}, copied_side_files(source, chain)
    return _with_side_tables(run, source, content)


def _with_side_tables(
    run: Path, source: StateFolder, content: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, NewFile]]:
    """Side tables made from the run's data; where that is gone, those that the run published last."""
    folder = run.parent if run.name == "checkpoints" else run
    if not (folder / CONFIG_FILE).is_file():
        reason = (
            "has no configuration to make side tables from: name the folder of a run, or give --without-side-tables"
        )
        raise StateError(reason, folder=folder)
    config = RunDir.open(folder).config()
    try:
        made = published_side_tables(config)
    except EmbtablesError as error:
        newest = source.latest("serving")
        if newest is None:
            reason = f"the side tables cannot be made: {error.message}; --without-side-tables publishes without them"
            raise StateError(reason, **error.path) from error
        then = {key: newest.content[key] for key in ("side_tables", "candidate_key") if key in newest.content}
        return content | then, copied_side_files(source, source.chain("serving", newest.sequence))
    listed = [of.model_dump(mode="json") for of, _ in made]
    files = {of.file: NewFile(SideFile(table).chunks()) for of, table in made}
    return content | {"side_tables": listed, "candidate_key": candidate_key(config)}, files


def _need_same_schema(target: StateFolder, content: dict[str, Any]) -> None:
    newest = target.latest("serving")
    if newest is None:
        return
    if newest.schema_hash != hash_of(content.get("schema")):
        reason = "has versions of another schema, whose servers could not read this one: give another folder with --to"
        raise StateError(reason, folder=target.folder.root, version=newest.name)
