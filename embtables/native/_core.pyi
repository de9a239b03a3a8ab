"""The compiled module. Arrays are contiguous and of exactly these types: nothing is converted or copied."""

import numpy as np
import numpy.typing as npt

def hash_strings(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32] | npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
    isa: str,
) -> None:
    """Hash string i = data[offsets[i] : offsets[i + 1]] into out[i]; the GIL is released.

    Args:
        data: (bytes,) the strings' bytes.
        offsets: (n + 1,) never negative, never falling, at most len(data).
        out: (n,) receives the hashes; left as it was where an error is raised.
        isa: one of `available_isas()`.

    Raises:
        ValueError: sizes do not fit, the offsets are damaged, or the instruction set is not available.
    """

def available_isas() -> list[str]:
    """The instruction sets that this build holds and this processor can run, slowest first."""
