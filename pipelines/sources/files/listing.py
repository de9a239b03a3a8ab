"""Which files a path means: a folder, a file, a glob, or a URI of any file system that pyarrow knows.

In a glob `*` and `?` stay within one folder, `**/` is any number of folders, `[abc]`, `[a-z]` and `[!a]` are classes,
`{a,b}` is a choice. What exists under its name is no glob: a folder may be called `logs [v2]`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from embtables.errors import DataError

_GLOB = re.compile(r"[*?\[{]")


@dataclass(frozen=True)
class Listing:
    """Files below a root, in the order of their paths.

    Attributes:
        root: a folder, or the only file.
        paths: of the files that match, each beginning with root.
        others: of all other files and folders below root, hidden ones included; they tell what made the folder.
    """

    filesystem: Any
    root: str
    paths: list[str]
    others: list[str]

    def relative(self, path: str) -> str:
        """`path` below the root; of the only file, its name."""
        return path.rsplit("/", 1)[-1] if path == self.root else path.removeprefix(self.root.rstrip("/") + "/")


def list_files(path: str, files: str) -> Listing:
    """The files at `path`; below a folder those that match the glob `files`.

    Names that begin with `.` or `_` are left out, as are folders below them. Symbolic links are followed, but not into
    a folder that they lie in.

    Raises:
        DataError: there are none, or `path` does not exist.
    """
    filesystem, root, pattern = _locate(path, files)
    info = filesystem.get_file_info(root)
    if info.type == fs.FileType.File:
        return Listing(filesystem, root, [root], [])
    if info.type == fs.FileType.NotFound:
        raise DataError("does not exist; set data.path to the folder of the parquet log", path=path)
    matcher = re.compile(_regex(pattern, path))
    base = root.rstrip("/") + "/"
    is_local = isinstance(filesystem, fs.LocalFileSystem)
    found = _walk(root) if is_local else _entries(filesystem, root)
    paths: list[str] = []
    others: list[str] = []
    for entry, is_file in found:
        relative = entry.removeprefix(base)
        shown = not any(part.startswith((".", "_")) for part in relative.split("/"))
        (paths if is_file and shown and matcher.fullmatch(relative) else others).append(entry)
    return Listing(filesystem, root, sorted(paths), sorted(others))


def _locate(path: str, files: str) -> tuple[Any, str, str]:
    """(file system, root folder or file, glob below it)."""
    filesystem: Any = fs.LocalFileSystem()
    if "://" in path:
        scheme, _, rest = path.partition("://")
        # In a URI a '?' begins its options (s3://bucket/logs?region=...).
        plain, pattern = ("", "") if "?" in rest else _parts(rest, lambda _: False)
        try:
            filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{plain}" if pattern else path)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"is not a URI that can be opened: {error}", path=path) from error
        return filesystem, root, pattern or files
    plain, pattern = _parts(path, os.path.lexists)
    return filesystem, plain, pattern or files


def _parts(path: str, exists: Any) -> tuple[str, str]:
    """(the folder before the first part that is a glob, the glob from there on); a part that exists is none."""
    parts = PurePosixPath(path).parts if "://" not in path and path.startswith("/") else tuple(path.split("/"))
    for number, part in enumerate(parts):
        so_far = str(PurePosixPath(*parts[: number + 1]))
        if _GLOB.search(part) and not exists(so_far):
            return (str(PurePosixPath(*parts[:number])) if number else "."), "/".join(parts[number:])
    return path, ""


def _walk(root: str) -> list[tuple[str, bool]]:
    """(path, whether it is a file) of all below a local folder. Raises DataError for a folder that cannot be read."""
    found: list[tuple[str, bool]] = []

    def visit(folder: str, above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise DataError(f"cannot be listed: {error.strerror}", path=folder) from error
        for entry in entries:
            is_folder = _is_folder(entry)
            found.append((entry.path, not is_folder))
            if is_folder:
                visit(entry.path, above | {real})

    visit(str(Path(root)) if root != "/" else root, frozenset())
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(filesystem: Any, root: str) -> list[tuple[str, bool]]:
    try:
        entries = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot be listed: {error}", path=root) from error
    return [(e.path, e.type == fs.FileType.File) for e in entries]


def _regex(pattern: str, shown: str) -> str:
    """The glob as a regular expression. Raises DataError if a class or a choice is not closed."""
    out, i, depth = "", 0, 0
    while i < len(pattern):
        c = pattern[i]
        if pattern.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
            continue
        if pattern.startswith("**", i):
            out, i = out + ".*", i + 2
            continue
        if c == "[":
            end = pattern.find("]", i + 2)
            if end < 0:
                raise DataError(f"the glob '{pattern}' opens a class with '[' and does not close it", path=shown)
            chars = pattern[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[").replace("^", "\\^")
            out, i = out + f"[{'^' + chars[1:] if chars.startswith('!') else chars}]", end + 1
            continue
        depth += c == "{"
        choice = {"{": "(?:", "}": ")", ",": "|"} if depth else {}
        depth -= c == "}" and depth > 0
        out += {"*": "[^/]*", "?": "[^/]", **choice}.get(c, re.escape(c))
        i += 1
    if depth:
        raise DataError(f"the glob '{pattern}' opens a choice with '{{' and does not close it", path=shown)
    try:
        re.compile(out)
    except re.error as error:
        raise DataError(f"the glob '{pattern}' cannot be read: {error}", path=shown) from error
    return out
