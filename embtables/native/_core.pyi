import numpy as np
import numpy.typing as npt

def hash_strings(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32] | npt.NDArray[np.int64],
    out: npt.NDArray[np.int64],
    isa: str,
) -> None: ...
def available_isas() -> list[str]: ...
