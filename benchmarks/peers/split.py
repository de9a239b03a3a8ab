"""The split files that every contender reads: MovieLens-1M, the usual CTR protocol, one seeded random 8:1:1 split.

FOLDER/part=train/rows.parquet, FOLDER/part=validation/rows.parquet, FOLDER/part=test/rows.parquet
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
COLUMNS = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "genres", "year", "label")
ROW_GROUP = 65_536


def write_split(source: Path, folder: Path, seed: int) -> dict[str, int]:
    """Writes the three files, unless they are there; rows of each part.

    Args:
        source: folder with ratings.parquet, users.parquet and movies.parquet.
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
    users = pq.read_table(source / "users.parquet")
    movies = pq.read_table(source / "movies.parquet", columns=["movie_id", "genres", "year"])
    ratings = pq.read_table(source / "ratings.parquet", columns=["user_id", "movie_id", "rating"])
    ratings = ratings.filter(pc.not_equal(ratings["rating"], 3))
    joined = ratings.append_column("label", pc.greater(ratings["rating"], 3).cast(pa.int8()))
    for side, key in ((users, "user_id"), (movies, "movie_id")):
        place = pc.index_in(joined[key].cast(pa.int64()), value_set=side[key].cast(pa.int64()).combine_chunks())
        for name in side.column_names:
            if name != key:
                joined = joined.append_column(name, side[name].take(place))
    return joined.select(COLUMNS).combine_chunks()
