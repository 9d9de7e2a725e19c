"""`python -m engine ...`: the engine from the command line, as a worker and as a tool for one machine."""

import argparse
import gc
import json
import logging
import os
import resource
import sys

from engine.commands import adapters, draw, learn, measure, service
from engine.commands.interrupts import Interrupted
from engine.learning import launched
from engine.sentences import sentence
from engine.work.gpu_client import ENVIRONMENT
from storage.errors import UserError

COMMANDS = {
    command.name: command
    for command in (
        *service.COMMANDS,
        *learn.COMMANDS,
        *draw.COMMANDS,
        *adapters.COMMANDS,
        *measure.COMMANDS,
    )
}


INTERRUPTED = 130
"""The exit status after Ctrl-C: 128 and SIGINT's number, as shells have it."""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    commands = argparse.ArgumentParser(prog="python -m engine", description="Learn a person from photos and draw them.")
    parsers = commands.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        text = f"{command.help[0].upper()}{command.help[1:]}."
        command.options(parsers.add_parser(command.name, help=command.help, description=text))
    return commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command. The exit status is 0 for success, 2 for a usage or input error, which is printed, and
    `INTERRUPTED` after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("arq", "httpx", "alembic", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # The libraries allocate half a million objects that are never freed. Garbage collections while they are imported
    # took a tenth of the time to the first step.
    gc.set_threshold(10_000)
    asked = parser().parse_args(arguments)
    command = COMMANDS[asked.command]
    try:
        launcher = launched.torch_variables(os.environ)
        if launcher and command.single:
            raise UserError("alone", command=command.name)
        figures = command.run(asked)
    except UserError as error:
        print(f"python -m engine {command.name}: {sentence(error)}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    if getattr(asked, "json", False) and launcher.get("RANK", "0") == "0":
        # Linux counts kibibytes, macOS bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"command": command.name, **figures, "peak_memory_mb": round(peak / 2**20)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
