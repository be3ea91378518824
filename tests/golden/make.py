"""Write the golden facts of `tests/test_golden.py`. Run once, with version 0.1 (commit ccc3db8).

    python tests/golden/make.py

To run it again is to change what must not change: only with a reason that its commit states.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import test_golden as golden


def main() -> None:
    golden.make_folders()
    numbers, vectors = {}, {}
    for name, found in golden.computed().items():
        arrays = {key: value for key, value in found.items() if isinstance(value, np.ndarray)}
        numbers[name] = {key: value for key, value in found.items() if key not in arrays}
        vectors[name] = np.concatenate([np.zeros(0), *(arrays[key] for key in sorted(arrays))])
    with tempfile.TemporaryDirectory() as folder:
        read = golden.read_folders(Path(folder))
        folders = golden.numbers(json.loads(json.dumps(read, default=np.ndarray.tolist)))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        golden.write_inputs(Path(folder))
        sys.meta_path.insert(0, golden.WithoutTorch)  # type: ignore[arg-type]
        sys.path.insert(0, folder)
        keys = {
            name: sorted(golden.keys(golden.command(*args)))
            for name, args in golden.commands(Path(folder)).items()
        }
        os.chdir(golden.GOLDEN)
    facts = {
        "numbers": numbers,
        "protocols": golden.protocol_digests(),
        "folders": folders,
        "keys": keys,
    }
    (golden.GOLDEN / "facts.json").write_text(json.dumps(facts, indent=0, ensure_ascii=False))
    np.savez_compressed(golden.GOLDEN / "facts.npz", **vectors)


if __name__ == "__main__":
    main()
