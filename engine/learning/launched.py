"""The processes that a launcher has started for one command, as the environment tells. Imports no torch.

torchrun and `accelerate launch` on GPUs say RANK and WORLD_SIZE; mpirun and mpiexec, which `accelerate launch` calls
for several CPU processes, say it in words of their own (those that accelerate's `get_cpu_distributed_information`
reads).
"""

from collections.abc import Mapping, MutableMapping

from storage.errors import UserError

PLAIN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What torch reads: this process's number, how many there are, and both on this machine."""

LAUNCHERS = (
    PLAIN,
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
"""The same four of torchrun, Open MPI, the MPIs with hydra (Intel's, MPICH) and MVAPICH2."""


def place(environment: Mapping[str, str]) -> dict[str, str]:
    """Torch's four names with what the launcher says; empty for a process that was started alone.

    Raises:
        UserError: `no_rank` if there are several processes and they do not tell which one this is.
    """
    for names in LAUNCHERS:
        rank, size, local_rank, local_size = (environment.get(name, "") for name in names)
        if size.isdecimal() and int(size) > 1:
            if not rank.isdecimal():
                raise UserError("no_rank", size=size, name=names[0])
            # A launcher that is silent on machines has one.
            return dict(zip(PLAIN, (rank, size, local_rank or rank, local_size or size), strict=True))
    return {}


def settle(environment: MutableMapping[str, str]) -> bool:
    """Put the launcher's words into torch's and say whether there is a team to join.

    Raises:
        UserError: `no_rank`, or `no_master` if several machines have not been told where to meet.
    """
    found = place(environment)
    environment.update(found)
    if found and not environment.get("MASTER_ADDR"):
        if found["LOCAL_WORLD_SIZE"] != found["WORLD_SIZE"]:
            raise UserError("no_master")
        environment["MASTER_ADDR"] = "127.0.0.1"
    if found:
        environment.setdefault("MASTER_PORT", "29500")
    return bool(found)
