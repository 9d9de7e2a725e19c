"""Several processes that a launcher starts learn as one, whichever launcher it is, and never write over each other."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.__main__ import main
from engine.adapters.adapters import FILE
from engine.learning import launched
from engine.sentences import sentence
from storage.errors import UserError
from tests.engine import tiny

MPIRUN = """#!{python}
# Open MPI's mpirun as far as accelerate calls it: what it says of its processes, without the processes' own messages.
import os, subprocess, sys
if "--version" in sys.argv:
    sys.exit(print("mpirun (Open MPI) 5.0.0"))
count = int(sys.argv[sys.argv.index("-n") + 1])
command = sys.argv[sys.argv.index({python!r}):]
said = lambda rank: {{"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(count),
                     "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": str(count)}}
running = [subprocess.Popen(command, env=os.environ | said(rank)) for rank in range(count)]
sys.exit(max(process.wait() for process in running))
"""


def free_port() -> str:
    import socket

    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def test_every_launcher_of_the_command_line_starts_one_team(pictures, tmp_path: Path) -> None:
    """Two CPU processes learn what one learns with the doubled batch; one of them writes and tells."""
    album = tmp_path / "album"
    album.mkdir()
    # Where gradients are nearly zero, Adam makes much of a rounding; larger latents have fewer such places.
    base = tiny.save("sd1_wide", tmp_path / "base")
    for number, picture in enumerate(pictures):
        picture.resize((512, 512)).save(album / f"{number}.png")
    mpirun = tmp_path / "bin" / "mpirun"
    mpirun.parent.mkdir()
    mpirun.write_text(MPIRUN.format(python=sys.executable))
    mpirun.chmod(0o755)
    (tmp_path / "hosts").write_text("127.0.0.1\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")} | {
        "PATH": f"{mpirun.parent}:{os.environ['PATH']}", "AVATAR_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1",
        "HF_HOME": str(tmp_path / "hub"), "MASTER_PORT": free_port(),
    }  # fmt: skip
    accelerate = ["-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no",
                  "--dynamo_backend", "no", "--num_processes", "2"]  # fmt: skip
    launchers: Mapping[str, list[str]] = {
        "one": ["-m"],
        "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"],
        "mpirun": [*accelerate, "--cpu", "--mpirun_hostfile", str(tmp_path / "hosts"), "-m"],
        # Without a hostfile accelerate starts one process on a CPU, whatever it was asked for.
        "simple": [*accelerate, "--cpu", "-m"],
    }
    learned = {}
    for name, launcher in launchers.items():
        alone = name in ("one", "simple")
        run = subprocess.run(
            [sys.executable, *launcher, "engine", "train", "--photos", str(album), "--token", "zk1x", "--class",
             "thing", "--base", str(base), "--out", str(tmp_path / name), "--steps", "3", "--rank", "4",
             "--size", "64", "--precision", "float32", "--prior-weight", "0", "--learning-rate", "2e-3", "--batch",
             "2" if alone else "1", "--json"],
            capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2], env=environment, check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        figures = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
        assert [told["devices"] for told in figures] == [1 if alone else 2], run.stdout
        assert run.stdout.count("Learned") == 1
        learned[name] = load_file(tmp_path / name / FILE)
    one = learned.pop("one")
    for name, other in learned.items():
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            assert torch.allclose(tensor.float(), other[key].float(), rtol=5e-3, atol=1e-5), (name, key)


@pytest.mark.parametrize(
    "said",
    [
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2", "WORLD_SIZE": "1", "RANK": "0"},
        {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_RANK": "1"},
    ],
)
def test_a_launchers_words_become_those_that_torch_reads(said: dict[str, str]) -> None:
    environment = dict(said)
    assert launched.set_torch_variables(environment)
    assert [environment[name] for name in launched.PLAIN] == ["1", "2", "1", "2"]
    assert environment["MASTER_ADDR"] == "127.0.0.1" and environment["MASTER_PORT"].isdecimal()


@pytest.mark.parametrize("said", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"OMPI_COMM_WORLD_SIZE": "1"}])
def test_a_process_alone_joins_nobody(said: dict[str, str]) -> None:
    environment = dict(said)
    assert not launched.set_torch_variables(environment) and environment == said


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"WORLD_SIZE": "2"}, "no_rank"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, "no_master"),
    ],
)
def test_who_cannot_find_the_others_does_not_learn_alone(said: dict[str, str], code: str) -> None:
    with pytest.raises(UserError) as refused:
        launched.set_torch_variables(dict(said))
    assert refused.value.code == code and sentence(refused.value)


def test_what_does_not_learn_together_is_refused_to_several(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    assert main(["imagine", "--prompt", "a man", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "single process" in line
