"""The compiled module. Arrays are contiguous and of exactly these types: nothing is converted or copied."""

import numpy as np
import numpy.typing as npt

def hash_strings(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32] | npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
    isa: str,
) -> None:
    """Hash string i = data[offsets[i] : offsets[i + 1]] into out[i]; of many, the GIL is released.

    Args:
        data: (bytes,) the strings' bytes.
        offsets: (n + 1,) never negative, never falling, at most len(data).
        out: (n,) receives the hashes; left as it was where an error is raised.
        isa: one of `available_isas()`.

    Raises:
        ValueError: sizes do not fit, the offsets are damaged, or the instruction set is not available.
    """

def split_strings(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32] | npt.NDArray[np.int64], separator: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The non-empty pieces of n strings: their bytes, (pieces + 1,) offsets into them, (n + 1,) each string's first."""

def mix(words: npt.NDArray[np.uint64], offset: int, out: npt.NDArray[np.uint64]) -> None:
    """out[i] = mix(words[i] + offset), see ids/mix.py."""

def available_isas() -> list[str]:
    """The instruction sets that this build holds and this processor can run, slowest first."""

def stride_of(dim: int) -> int:
    """Floats from one row of `dim` floats to the next, as tables have them."""

class TableSpec:
    """A table as the core sees it: numbers for optimizer (0 SGD, 1 Adagrad, 2 rowwise Adagrad, 3 Adam) and initial rows
    (0 zeros, 1 constant a, 2 normal with factor a, 3 uniform from a over a width of b)."""

    def __init__(
        self,
        dim: int,
        num_rows: int,
        rule: int,
        rate: float,
        eps: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        initial: int,
        initial_a: float,
        initial_b: float,
        seed: int,
    ) -> None: ...
    def set_policy(
        self,
        min_count: int,
        probability: float,
        max_waiting: int,
        sketch: bool,
        ttl_seconds: int,
        max_rows: int,
        cold_row_learns: bool,
    ) -> None:
        """Makes it collisionless; ttl_seconds 2^32 - 1: none; max_rows 0: no limit."""
    def set_part(self, first: int, end: int) -> None:
        """It holds the keys of buckets [first, end) alone. Limits are then kept by whoever has the other parts."""
    def set_keys_of(self, table: int) -> None:
        """It shares the keys of a table before it, which is like it in seed, policy and part: a key has one row number
        in both. Lookups of the other alone count and admit; a lookup of this one in training reads what they made."""

def table_bytes(spec: TableSpec, rows: int, waiting: int) -> dict[str, int]:
    """Bytes that a table takes in a store once so many keys have rows (of a fixed table: rows that it holds) and so
    many wait for one, keys being spread evenly. `row`: of one row; `rows`: of all, the cold row among them; `keys`: of
    the map or index of keys; `counts`: of the sketch of waiting keys; `listed`: of the list of rows that changed since
    a cut, at most."""

# Features, rows of the keys, offsets, weights, number of bags, gradient (B, sum of D).
KeptBags = tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.int64],
    npt.NDArray[np.float32] | None,
    int,
    npt.NDArray[np.float32],
]
# Features, rows of the keys, bounds (S + 1,) and places (S,) of the segments (below 0: no gradients), message with
# gradients, how many occurrences each key's gradient stands for.
KeptMessage = tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.uint32],
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.float32],
    npt.NDArray[np.int32] | None,
]
Kept = KeptBags | KeptMessage

class Store:
    """Tables in native memory. Lookups: L lists of keys of B bags, (L * B + 1,) offsets into (N,) keys; rows are
    numbers that `resolve` gives for keys. In `pooled` and `update` features i, L + i, ... read list i, elsewhere there
    are L features. ValueError: sizes that do not fit. The GIL is released."""

    def __init__(self, tables: list[TableSpec], feature_tables: list[int], isa: str, threads: int) -> None: ...
    def resolve(
        self,
        features: npt.NDArray[np.int32],
        keys: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        bags: int,
        train: bool,
        threads: int,
        rows: npt.NDArray[np.uint32],
        counts: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """`counts`: how often each key occurred; None: once. IndexError: a key outside a fixed table or its part."""
    def find(self, table: int, keys: npt.NDArray[np.int64], threads: int, rows: npt.NDArray[np.uint32]) -> None: ...
    def output(self, rows: int, width: int) -> npt.NDArray[np.float32]:
        """Uninitialised (rows, width); its memory is used again once nothing refers to it."""
    def pooled(
        self,
        features: npt.NDArray[np.int32],
        rows: npt.NDArray[np.uint32],
        offsets: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        bags: int,
        threads: int,
        out: npt.NDArray[np.float32],
    ) -> None: ...
    def dots(
        self,
        features: npt.NDArray[np.int32],
        rows: npt.NDArray[np.uint32],
        offsets: npt.NDArray[np.int64],
        bags: int,
        gradient: npt.NDArray[np.float32],
        threads: int,
        out: npt.NDArray[np.float32],
    ) -> None: ...
    def gather(
        self,
        features: npt.NDArray[np.int32],
        rows: npt.NDArray[np.uint32],
        bounds: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
        threads: int,
        message: npt.NDArray[np.float32],
    ) -> None:
        """Rows of S segments, as many of each feature, bounds (S + 1,) among the keys, to their places in a message."""
    def gradient_norm(self, kept: list[Kept], threads: int) -> float: ...
    def update(self, kept: list[Kept], factor: float, scale: float, threads: int) -> list[tuple[int, int]]:
        """By table: rows updated, rows refused because their gradient was not finite."""
    def read(
        self, table: int, column: int, rows: npt.NDArray[np.uint32], threads: int, out: npt.NDArray[np.float32]
    ) -> None:
        """Column 0: weight, as it is stored; 1, 2: optimizer state of D values; 3: the one value of rowwise Adagrad."""
    def write(
        self, table: int, column: int, rows: npt.NDArray[np.uint32], threads: int, values: npt.NDArray[np.float32]
    ) -> None: ...
    def scale(self, table: int) -> float:
        """A weight is the scale as float32 times what is stored; `read`, `write` and a capture have what is stored."""
    def set_scale(self, table: int, scale: float) -> None:
        """In (0, 1]. ValueError: it is not."""
    def fold_scale(self, table: int, threads: int) -> None:
        """Makes it 1: weights stay, as they are to float32, and all rows have changed."""
    def num_steps(self, table: int) -> int: ...
    def set_num_steps(self, table: int, steps: int) -> None: ...
    def advance(self, table: int, now: int) -> None: ...
    def end_step(self, table: int, threads: int) -> None: ...
    def remove(self, table: int, keys: npt.NDArray[np.int64]) -> None:
        """Those that are there lose their row, or wait no longer."""
    def clear(self, table: int) -> None:
        """Empties a collisionless table."""
    def make(self, table: int, keys: npt.NDArray[np.int64]) -> None:
        """Keys of a collisionless table that have no row get a fresh one, seen now."""
    def make_fresh(self, table: int, rows: npt.NDArray[np.uint32]) -> None:
        """These rows of a fixed table become as they were made."""
    def place(
        self,
        table: int,
        keys: npt.NDArray[np.int64],
        seen: npt.NDArray[np.uint32],
        threads: int,
        rows: npt.NDArray[np.uint32],
    ) -> None:
        """Rows for keys of a saved table; what is in them is then to be written. ValueError: a key comes twice."""
    def set_waiting(
        self,
        table: int,
        keys: npt.NDArray[np.int64],
        counts: npt.NDArray[np.uint32],
        seen: npt.NDArray[np.uint32],
    ) -> None:
        """Makes these the keys that wait. ValueError: one has a row."""
    def set_clock(self, table: int, now: int, steps: int) -> None: ...
    def read_counts(self, table: int, rows: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]) -> None:
        """How many gradients each row has had."""
    def write_counts(self, table: int, rows: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint32]) -> None: ...
    def list_rows(
        self, table: int, after: int, threads: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """Keys alive whose rows changed after the cut (0: all), by bucket and value; rows; when they were last seen;
        where each bucket begins, (1,025,)."""
    def list_waiting(
        self, table: int, threads: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """Waiting keys, by bucket and value, their counts, when they were last seen, where each bucket begins."""
    def draw_cut(self) -> int:
        """The number of the cut that ends here; what changes from now on belongs to the next."""
    def see(self, table: int, rows: npt.NDArray[np.uint32]) -> None:
        """Training saw these rows, which is a change in the present cut."""
    def tombstones(self, table: int, after: int) -> npt.NDArray[np.int64]:
        """Keys that lost a row after the cut, ascending; some may have one again. ValueError: not known any more."""
    def forget(self, cut: int) -> None:
        """Nobody will ask for changes in cuts up to this one."""
    def sketch(self, table: int) -> npt.NDArray[np.uint8]:
        """The counts of waiting keys, where they are in a sketch; else empty."""
    def set_sketch(self, table: int, saved: npt.NDArray[np.uint8]) -> None: ...
    def stats(self, table: int) -> dict[str, int]: ...
    def age_bins(self, table: int, waiting: bool, threads: int) -> npt.NDArray[np.int64]:
        """How many rows or waiting keys are in each bin of age (rows/limits.py); drops what is past its ttl."""
    def of_age(
        self, table: int, waiting: bool, age_bin: int, threads: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """When those in a bin were seen, and the mixes of their keys."""
    def evict(self, table: int, waiting: bool, age_bin: int, seen: int, mix: int, threads: int) -> None:
        """Drops those in older bins, and of that bin those up to (seen, mix), the mix as an unsigned number."""
    def ages_and_counts(self, table: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """Of the rows alive, in any order: the clock since they were last seen, and how often they learned."""

class Capture:
    """A table's rows at this moment, which any thread may read while the store's goes on: rows that change are saved
    before they do. Where no cut was just drawn, all are copied at once."""

    def __init__(self, store: Store, table: int) -> None: ...
    def close(self) -> None:
        """Frees it; its other methods raise ValueError afterwards, and those that another thread is in."""
    def list_rows(
        self, threads: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
        """As Store.list_rows of all that were alive."""
    def read(self, column: int, rows: npt.NDArray[np.uint32], out: npt.NDArray[np.float32]) -> None:
        """As Store.read, on this thread alone."""
    def read_counts(self, rows: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]) -> None: ...

def add_rows(
    sums: npt.NDArray[np.float32],
    keys: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int32],
    gradient: npt.NDArray[np.float32],
) -> None:
    """Adds gradients (n, D) of keys (n,), and how often each occurred, to sums (R, D + 1) by row."""

def used_rows(
    sums: npt.NDArray[np.float32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Of the rows of such sums that occurred: keys (n,), ascending, how often, gradients (n * D,)."""

def words_of_key(counted: bool) -> int:
    """How many int32 a key takes in a message with keys, with how often it occurred or without."""

def by_block(
    message: npt.NDArray[np.int32], sizes: npt.NDArray[np.int64], ranks: int, counted: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Keys (n,) of messages of each rank, (ranks * blocks,) sizes, by block and within it by rank; and counts (n,), or
    (0,) where they are not told."""

class Buffers:
    """Memory for messages, used again once nothing refers to it."""

    def take(self, floats: int) -> npt.NDArray[np.float32]:
        """(floats,), uninitialised."""

class KeyExchange:
    """The distinct keys of a lookup by the rank that owns them, and what is made of the rows that come back.

    The lookup has F features of B bags, (F * B + 1,) offsets into (N,) keys. Features of one block (a table's seed and
    dim) are deduplicated together. A message with rows has for each of the ranks `header` floats and then the rows of
    its distinct keys, block after block. ValueError: sizes that do not fit, or more than 2^32 floats. The GIL is
    released.
    """

    def __init__(
        self,
        seeds: npt.NDArray[np.uint64],
        dims: npt.NDArray[np.int32],
        block_of_feature: npt.NDArray[np.int32],
        keys: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        bags: int,
        owners: npt.NDArray[np.uint16],
        holders: npt.NDArray[np.int32],
        ranks: int,
        header: int,
        threads: int,
        isa: str,
    ) -> None: ...
    def asked(self, counted: bool) -> npt.NDArray[np.int32]:
        """A message with the U distinct keys, (3 * U,), or (2 * U,) without how often each occurred: for each rank keys
        by block and first occurrence, two numbers each, and then their counts."""
    def sizes(self) -> npt.NDArray[np.int64]:
        """(ranks * blocks,) how many keys each rank's blocks have."""
    @property
    def num_floats(self) -> int: ...
    def pooled(
        self,
        rows: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        bags: int,
        threads: int,
        out: npt.NDArray[np.float32],
    ) -> None:
        """Weighted sums (B, sum of D) of a message's rows."""
    def gather(self, rows: npt.NDArray[np.float32], feature: int, threads: int, out: npt.NDArray[np.float32]) -> None:
        """A feature's rows (n, D), in the order of its keys."""
    def dots(
        self,
        rows: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        bags: int,
        gradient: npt.NDArray[np.float32],
        threads: int,
        out: npt.NDArray[np.float32],
    ) -> None:
        """(N,) of each key its row times the gradient of its bag."""
    def sum_pooled(
        self,
        gradient: npt.NDArray[np.float32],
        offsets: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        bags: int,
        threads: int,
        rows: npt.NDArray[np.float32],
    ) -> None:
        """Fills a message with the gradients of the distinct keys, summed in the order of the lookup; headers stay."""
    def sum_gathered(
        self, gradients: list[npt.NDArray[np.float32] | None], threads: int, rows: npt.NDArray[np.float32]
    ) -> None:
        """The same of gradients (n, D) of each feature's rows; of a feature with none, the message stays as it is."""

class ServedConfig:
    """A table that is served: its rows' dimension, seed, rows (0: collisionless) and ttl (2**32 - 1: none)."""

    def __init__(self, dim: int, seed: int, num_rows: int, ttl_seconds: int) -> None: ...

class ServedStore:
    """Rows for many readers beside one writer (serve/served_store.h). Keys outside a fixed table: IndexError."""

    def __init__(self, tables: list[ServedConfig], feature_tables: list[int], isa: str) -> None: ...
    def pooled(
        self,
        features: npt.NDArray[np.int32],
        keys: npt.NDArray[np.int64],
        offsets: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32] | None,
        bags: int,
        threads: int,
        out: npt.NDArray[np.float32],
    ) -> None:
        """out (bags, width)."""
    def gather(
        self,
        table: int,
        keys: npt.NDArray[np.int64],
        threads: int,
        out: npt.NDArray[np.float32],
        is_cold: npt.NDArray[np.bool_] | None,
    ) -> int:
        """out (keys, dim); is_cold (keys,): which have no row. Returns how many."""
    def gather_bytes(self, table: int, keys: npt.NDArray[np.int64]) -> tuple[bytes, int]:
        """Float32 (keys, dim) as bytes; how many keys have no row."""
    def cold(self, table: int, keys: npt.NDArray[np.int64], is_cold: npt.NDArray[np.bool_]) -> None:
        """is_cold (keys,), as `gather`."""
    def seen(self, table: int, keys: npt.NDArray[np.int64], clocks: npt.NDArray[np.uint32]) -> None:
        """clocks (keys,): the table's when each was last seen; 0 for one without a row, and in a fixed table."""
    def apply(
        self,
        table: int,
        keys: npt.NDArray[np.int64],
        weights: npt.NDArray[np.float32],
        seen: npt.NDArray[np.uint32] | None,
        tombstones: npt.NDArray[np.int64],
        cold: npt.NDArray[np.float32] | None,
        now: int,
        scale: float,
        more: bool,
    ) -> None:
        """Takes tombstones' rows away and sets rows; from the last piece (not `more`) on, all are at this scale."""
    def reserve(self, table: int, rows: int) -> None:
        """Room for so many rows in all."""
    def stats(self, table: int) -> dict[str, int]:
        """rows, now, bytes."""

class JsonRows:
    """Rows of a request in JSON, as columns (json/json_rows.h)."""

    @property
    def context(self) -> bytes:
        """The object that was sent, or nothing."""
    @property
    def request_id(self) -> str | None: ...
    @property
    def is_candidates(self) -> bool:
        """False: they came as `rows`."""
    @property
    def num_rows(self) -> int: ...
    @property
    def mixed(self) -> list[str]:
        """Columns of float64 that have integers, too."""
    @property
    def shape(self) -> str:
        """Equal for equal names, types and `mixed`."""
    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """A struct array, a field for each column: int64, float64, string or null."""

def read_json_rows(body: bytes) -> JsonRows | None:
    """None: it is another request, or has a fault."""

class RunningConfig:
    """What `RunningKeys` answers with; times are microseconds. A `missing` of None is NaN in the answers."""

    def __init__(self, lateness_us: int, keep_us: int | None) -> None: ...
    def add_count(self, window_us: int | None) -> None: ...
    def add_age(self, unit_us: float, missing: float | None, most: float | None) -> None: ...
    def add_idle(self, unit_us: float, missing: float | None, most: float | None) -> None: ...
    def add_last_value(self) -> None:
        """The float64 of the key's last event, as the bits of an int64; a track of values."""

    def add_last_n(self, n: int) -> None:
        """A list of int64, oldest first; a track of values, but no column of numbers."""

class RunningKeys:
    """What happened to keys strictly before a time. One thread folds (or takes the image) while any number ask."""

    def __init__(self, config: RunningConfig) -> None: ...
    def fold(
        self,
        clock: int,
        times: npt.NDArray[np.int64],
        keys: npt.NDArray[np.int64],
        values: list[npt.NDArray[np.int64]],
        has_value: list[npt.NDArray[np.bool_] | None],
    ) -> None:
        """Takes (n,) events in; `values` and `has_value` are (n,) for each track, in the order of the configuration."""

    def ask(
        self,
        times: npt.NDArray[np.int64],
        keys: npt.NDArray[np.int64],
        known: npt.NDArray[np.bool_] | None,
        out: npt.NDArray[np.float32],
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Fills `out`, (columns of numbers, n). Returns (n + 1,) offsets and the values of each list."""

    def image(self) -> dict[str, npt.NDArray[np.int64]]:
        """All of it as arrays, by key in ascending order."""

    def fill(self, arrays: dict[str, npt.NDArray[np.int64]], clock: int) -> None:
        """Makes an empty one what an image says. Raises ValueError for what is none."""

    @property
    def num_keys(self) -> int: ...
    @property
    def bytes(self) -> int: ...

class Joiner:
    """Impressions and actions with the same key, joined by event time (join/joiner.h). Times are microseconds since
    1970; outcomes are numbers of `JoinOutcome` there. Calls may come from several threads; one works at a time."""

    def __init__(self, window_us: int, late_us: int, skew_us: int) -> None: ...
    def hold(self) -> int:
        """A number for an entry, held until `release` and as long as a payload of it is needed."""
    def release(self, entry: int) -> None: ...
    def take_freed(self) -> npt.NDArray[np.uint32]:
        """Entries that nothing needs since the last call; their numbers may be given again."""
    def impressions(
        self,
        entry: int,
        keys: npt.NDArray[np.uint64],
        times: npt.NDArray[np.int64],
        rows: npt.NDArray[np.uint32],
        outcomes: npt.NDArray[np.uint8],
        found_entries: npt.NDArray[np.uint32],
        found_rows: npt.NDArray[np.uint32],
    ) -> None:
        """All (n,). `found_*` receive the action that had waited, where the outcome is too_late or too_early."""
    def actions(
        self,
        entry: int,
        keys: npt.NDArray[np.uint64],
        times: npt.NDArray[np.int64],
        rows: npt.NDArray[np.uint32],
        outcomes: npt.NDArray[np.uint8],
        found_entries: npt.NDArray[np.uint32],
        found_rows: npt.NDArray[np.uint32],
    ) -> None:
        """All (n,). `found_*` receive the impression, where the outcome is joined or corrected."""
    def advance(
        self, watermark: int, most: int
    ) -> tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint8],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint32],
        bool,
    ]:
        """Closed windows by (time, key): keys, times, entries, rows, whether a correction follows; orphans:
        entries, rows; whether that was all, of about `most` at a time."""
    def save(
        self,
    ) -> tuple[
        npt.NDArray[np.uint64],
        npt.NDArray[np.int64],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint32],
        npt.NDArray[np.uint8],
    ]:
        """keys, times, entries, rows, states: the same arrays for the same events, read in the same order, but for the
        numbers of entries."""
    def load(
        self,
        keys: npt.NDArray[np.uint64],
        times: npt.NDArray[np.int64],
        entries: npt.NDArray[np.uint32],
        rows: npt.NDArray[np.uint32],
        states: npt.NDArray[np.uint8],
        num_entries: int,
        watermark: int | None,
    ) -> None:
        """What `save` gave, entries numbered 0..num_entries-1, into a joiner without events.

        Raises:
            ValueError: this is not what `save` gives; the joiner is not to be used then.
        """
    @property
    def watermark(self) -> int | None: ...
    @property
    def size(self) -> int:
        """Keys that are held."""
    @property
    def bytes(self) -> int: ...
