"""How many processes a launcher has started for one command, from the environment. Imports no torch.

torchrun and `accelerate launch` on GPUs set RANK and WORLD_SIZE. mpirun and mpiexec, which `accelerate launch` calls
for several CPU processes, set variables of their own (accelerate's `get_cpu_distributed_information` reads them).
"""

from collections.abc import Mapping, MutableMapping

from storage.errors import UserError

PLAIN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""The variables that torch reads: this process's number, how many processes there are, and both for this machine."""

LAUNCHERS = (
    PLAIN,
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
)
"""The same four variables as torchrun, Open MPI, the MPIs with hydra (Intel's, MPICH) and MVAPICH2 name them."""


def torch_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Torch's four variables with the launcher's values; empty for a process that was started alone.

    Raises:
        UserError: `no_rank` if there are several processes and the environment does not say which one this is.
    """
    for names in LAUNCHERS:
        rank, size, local_rank, local_size = (environment.get(name, "") for name in names)
        if size.isdecimal() and int(size) > 1:
            if not rank.isdecimal():
                raise UserError("no_rank", size=size, name=names[0])
            # A launcher that does not count by machine runs on one machine.
            return dict(zip(PLAIN, (rank, size, local_rank or rank, local_size or size), strict=True))
    return {}


def set_torch_variables(environment: MutableMapping[str, str]) -> bool:
    """Set torch's variables from the launcher's, and return whether there is a team to join.

    Raises:
        UserError: `no_rank`, or `no_master` if there are several machines and no address of the main one.
    """
    found = torch_variables(environment)
    environment.update(found)
    if found and not environment.get("MASTER_ADDR"):
        if found["LOCAL_WORLD_SIZE"] != found["WORLD_SIZE"]:
            raise UserError("no_master")
        environment["MASTER_ADDR"] = "127.0.0.1"
    if found:
        environment.setdefault("MASTER_PORT", "29500")
    return bool(found)
