"""The split files that every contender reads: MovieLens, the usual CTR protocol, one seeded random 8:1:1 split.

FOLDER/part=train/rows.parquet, FOLDER/part=validation/rows.parquet, FOLDER/part=test/rows.parquet
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
COLUMNS = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "genres", "year", "label")
ROW_GROUP = 65_536
_NAMES_100K = {"item_id": "movie_id", "zip_code": "zip", "class": "genres", "release_year": "year"}


def write_split(source: Path, folder: Path, seed: int) -> dict[str, int]:
    """Writes the three files, unless they are there; rows of each part.

    Args:
        source: folder with ratings.parquet, users.parquet and movies.parquet, of MovieLens-1M or 100k.
    """
    files = {part: folder / f"part={part}" / "rows.parquet" for part in SHARES}
    if not all(file.exists() for file in files.values()):
        table = _rows(source)
        order = np.random.default_rng(seed).permutation(table.num_rows)
        bounds = [0, *np.round(np.cumsum(list(SHARES.values())) * table.num_rows).astype(int)]
        for number, file in enumerate(files.values()):
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = table.take(pa.array(order[bounds[number] : bounds[number + 1]]))
            pq.write_table(rows, file, row_group_size=ROW_GROUP)
    return {part: pq.read_metadata(file).num_rows for part, file in files.items()}


def _rows(source: Path) -> pa.Table:
    """All rows with user and movie columns joined; rating 3 dropped, label 1 above it."""
    users, movies, ratings = (_named(source / f"{name}.parquet") for name in ("users", "movies", "ratings"))
    ratings = ratings.filter(pc.not_equal(ratings["rating"], 3))
    joined = ratings.append_column("label", pc.greater(ratings["rating"], 3).cast(pa.int8()))
    for side, key in ((users, "user_id"), (movies, "movie_id")):
        place = pc.index_in(joined[key].cast(pa.int64()), value_set=side[key].cast(pa.int64()).combine_chunks())
        for name in side.column_names:
            if name != key and name in COLUMNS:
                joined = joined.append_column(name, side[name].take(place))
    return joined.select(COLUMNS).combine_chunks()


def _named(file: Path) -> pa.Table:
    """A file of either set, with the columns of MovieLens-1M: genres between `|`, occupations and years as numbers."""
    table = pq.read_table(file)
    if not set(_NAMES_100K) & set(table.column_names):
        return table
    table = table.rename_columns([_NAMES_100K.get(name, name) for name in table.column_names])
    for name, change in _CHANGES_100K.items():
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, change(table[name].combine_chunks()))
    return table


def _year(years: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(pc.match_substring_regex(years, "^[0-9]+$"), False), years, "0").cast(pa.int64())


_CHANGES_100K: dict[str, Callable[[pa.Array], pa.Array]] = {
    "genres": lambda genres: pc.replace_substring(genres, " ", "|"),
    "occupation": lambda names: pc.rank(names, tiebreaker="dense").cast(pa.int64()),
    "year": _year,
}
