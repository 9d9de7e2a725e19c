"""Write the lock files from pyproject.toml; run by `make lock`, with uv's path as the argument.

requirements.lock       everything, with PyTorch's CPU build of torch (Linux)
requirements-cuda.lock  everything, with PyPI's build of torch: CUDA and its libraries on Linux, Metal on macOS
requirements-bot.lock   the bot and storage alone, without torch

Each is complete and installed with `pip install --require-hashes -r FILE`. One file cannot hold both builds: where pip
is offered both it prefers PyPI's, since PyPI names a hash beforehand and a folder of wheels does not.
Versions that an existing lock names are kept while pyproject.toml admits them; remove the lock files to renew all.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
CUDA = re.compile(r"(nvidia-|cuda-|triton==)")

# PyPI has no CPU build of torch for Linux, so uv cannot tell its hash.
TORCH_CPU = {
    "2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"],  # Python 3.11, Linux x86_64
}

HEAD = """\
# Made by `make lock` from pyproject.toml: {what}.
# pip install --require-hashes -r {name}
"""


def resolve(uv: str, kept: str, *extras: str) -> list[str]:
    """One block of text for each pinned package, for Linux and macOS, as uv resolves them on PyPI."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.txt")
        out.write_text(kept)  # uv prefers the versions that it finds in its output file
        command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11"]
        command += ["--no-header", "--no-annotate", "--default-index", "https://pypi.org/simple"]
        command += ["--no-emit-index-url", "--output-file", str(out)]
        for extra in extras:
            command += ["--extra", extra]
        subprocess.run([*command, "pyproject.toml"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        text = out.read_text().strip()
    # What holds on every machine that the project supports says nothing, and hides the package from all others.
    text = text.replace(" and (sys_platform == 'darwin' or sys_platform == 'linux')", "")
    text = re.sub(r" ; python_full_version < '3\.14'(?= \\)", "", text).replace("python_full_version < '3.14' and ", "")
    return re.split(r"\n(?=\S)", text)


def cpu_build(block: str) -> str:
    """The block of torch's CPU build, made from the block of PyPI's."""
    version = block.partition("==")[2].split()[0]
    if version not in TORCH_CPU:
        raise SystemExit(f".ci/lock.py knows no CPU build of torch {version}: add its hash to TORCH_CPU")
    return f"torch=={version}+cpu" + "".join(f" \\\n    --hash=sha256:{digest}" for digest in TORCH_CPU[version])


def write(name: str, what: str, blocks: list[str]) -> None:
    (ROOT / name).write_text(HEAD.format(name=name, what=what) + "\n".join(blocks) + "\n")
    print(f"{name}: {len(blocks)} packages")


def main() -> None:
    uv = sys.argv[1]
    lock = ROOT / "requirements-cuda.lock"
    everything = resolve(uv, lock.read_text() if lock.exists() else "", "engine", "dev")
    bot = resolve(uv, "\n".join(everything))
    # torch comes first, so that pip says at once when the build is not to be had.
    torch = next(block for block in everything if block.startswith("torch=="))
    others = [block for block in everything if block != torch]
    small = [block for block in others if not CUDA.match(block)]
    write("requirements.lock", "everything, with the CPU build of torch for Linux", [cpu_build(torch), *small])
    write(lock.name, "everything, with CUDA on Linux and Metal on macOS", [torch, *others])
    write("requirements-bot.lock", "the bot and storage, without torch", bot)


if __name__ == "__main__":
    main()
