"""Ours and the reference side by side, in ratios: `make bench REFERENCE=diffusers/examples/dreambooth`.

REFERENCE is the folder of diffusers' train_dreambooth.py and train_dreambooth_lora.py, which run unchanged
(`tests.benchmarks.reference`). Both sides get the same base, album, steps and batch in one run, one after the other, so
that a ratio means something on a busy machine too; CPU time is given beside wall time for the same reason.
`ONLY=job,warm` runs some of the benchmarks, `STEPS=50` shortens the jobs (the reference's own numbers by default) and
repeats what is timed less often.
"""

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks.comparison import SCRIPTS, Bench, Ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path, help="folder of diffusers' train_dreambooth.py and .._lora.py")
    parser.add_argument("--only", default=",".join(Bench.ALL))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--work", type=Path, help="folder to keep what is made; a temporary one by default")
    asked = parser.parse_args()
    missing = [name for name in SCRIPTS.values() if not (asked.reference / name).is_file()]
    if missing:
        sys.exit(f"{asked.reference} has no {' and no '.join(missing)}: name diffusers' examples/dreambooth")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(asked.reference.resolve(), (asked.work or Path(temporary)).resolve(), asked.steps)
        rows: list[Ratio] = []
        print("| what | ours | reference | ratio | goal | kept |\n|---|---|---|---|---|---|", flush=True)
        for name in asked.only.split(","):
            # Each in a process of its own: what it starts begins with its parent's peak of memory as its own.
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                for row in alone.submit(Bench.ALL[name], bench).result():
                    rows.append(row)
                    print(row.row(), flush=True)
    print(json.dumps([{"what": row.what, "ratio": row.value, "goal": row.goal} for row in rows]))


if __name__ == "__main__":
    main()
