"""An evaluation that the base cannot have been trained for: `python -m tests.evaluation --help`.

Its albums, poses, palettes, wordings and renderer settings are its own. Pre-training may not import this folder, and
what draws and asks here shares no code with what drew and captioned the pictures of pre-training
(`test_independence.py`).
"""

import sys

from tests.evaluation.run import main

if __name__ == "__main__":
    sys.exit(main())
