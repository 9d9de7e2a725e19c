#!/bin/bash
# safetensors 0.8.0: where a file cannot grow (a full disk, a limit on its size), `save_file` raises SafetensorError,
# which is no OSError and has no errno. Code that catches OSError around `save_file`, as around `torch.save` or
# `open().write`, therefore does not see a full disk. The number of the system's error stands only in the message:
# "Error while serializing: I/O error: File too large (os error 27)"; for a full disk it is 28.
#
# Expected: OSError with errno, as from Python's own files. The limit on the size of files stands in for a full disk.
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check safetensors==0.8.0 numpy==2.3.4
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import errno
import resource

import numpy as np
import safetensors
from safetensors import SafetensorError
from safetensors.numpy import save_file

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with open("plain", "wb") as file:
        file.write(bytes(1_000_000))
    raise SystemExit("the limit did not work")
except OSError as error:
    assert error.errno == errno.EFBIG
    print("open().write:", type(error).__mro__[:2], error)
try:
    save_file({"weights": np.zeros(1_000_000, np.float32)}, "file.safetensors")
    raise SystemExit("changed: it was written")
except SafetensorError as error:
    print(f"safetensors {safetensors.__version__} save_file:", type(error).__mro__[:2], error)
    changed = isinstance(error, OSError) or getattr(error, "errno", None) is not None
    assert not changed and "(os error 27)" in str(error), "changed: it is an OSError, or has another message"
PYTHON
echo "as described"
