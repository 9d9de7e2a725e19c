"""The commands of an engine's machine: `python -m engine work | base`."""

import argparse
import asyncio
import sys

from engine.commands.command import Command, Figures, settings


def _no_options(parser: argparse.ArgumentParser) -> None:
    """It has no options; the settings configure it."""


def run_work(asked: argparse.Namespace) -> Figures:
    """`work`: take jobs from the queues until stopped."""
    from engine.work.gpu_client import BaseUnusable
    from engine.work.worker import run

    try:
        asyncio.run(run(settings()))
    except BaseUnusable:  # the GPU process has said why
        sys.exit(2)
    return {}


def _base_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--path", action="store_true", help="accepted for older scripts; changes nothing (default: off)"
    )


def run_base(asked: argparse.Namespace) -> Figures:
    """`base`: the base model in use."""
    from engine.toon import WEIGHTS

    print(settings().base_model or WEIGHTS)
    return {}


COMMANDS = (
    Command("work", "take jobs from the queues until stopped", _no_options, run_work),
    Command("base", "print the folder or hub id of the base model in use", _base_options, run_base),
)
