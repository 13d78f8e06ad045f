"""``zoo-farm worker``: runs one job file, for example one kept with a failure."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from builders.jobs.messages import BuildOutput, Failure, parse_result
from zoo.cli.command import add_arguments
from zoo.util.errors import JobError, VerificationError


def add_commands(commands: Any) -> None:
    """Adds the command to the parser's subcommands."""
    parser = add_arguments(commands, "worker", worker)
    parser.add_argument("job", help="job.json, as kept with a failure")
    parser.add_argument("output", help="folder for the result, the log and files")


def worker(options: argparse.Namespace) -> int:
    """Runs one job as an executor does; reproduces a failure from its job file."""
    from builders.worker import execute

    status = execute.main([options.job, options.output])
    result_file = Path(options.output) / "result.json"
    if not result_file.is_file():
        return status
    result = parse_result.validate_json(result_file.read_bytes())
    if isinstance(result, Failure):
        raise JobError(result.message, hint=result.hint)
    if isinstance(result, BuildOutput) and result.verification and not result.verification.passed:
        raise VerificationError(result.verification.reason or "verification failed")
    print(f"done: {result_file}")
    return status
