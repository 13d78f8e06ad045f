"""Chooses the GPUs of a pass, and how many processes run on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from zoo.caft.decode import cores
from zoo.client.host import Run, VisibleGpu, run_command, visible_gpus
from zoo.inference.extractor import Extractor
from zoo.inference.gpu import nvjpeg
from zoo.runtime.base import DeviceSession
from zoo.util.errors import UsageError

Devices = Sequence[int] | Literal["all"]
"""GPUs by their numbers, as ``nvidia-smi`` lists them, or all that the engine runs on."""

Environments = Mapping[str, Mapping[str, str]]
"""Environment variables of each process, by its name for messages."""

LONG_PASS = 32_768
"""Files per GPU from which other processes are worth starting: one does about as many in the
seconds that they take."""

_LEAST_CORES = 4
"""Cores per GPU, below which a second process would take time from the first."""

_PROCESS_MIB = 4096
"""GPU memory of a process besides its engine, in MiB, for CUDA, decoder, photos and batches; about
3,300 were measured."""

_COPIES = 4
"""GPU memory of an engine, in sizes of its file: weights, and generously, its contexts."""


def chosen_gpus(devices: Devices, extractor: Extractor, run: Run = run_command) -> Environments:
    """Returns the processes of a pass that runs on these GPUs: one for each.

    A GPU that is given twice has two.

    Raises:
        UsageError: The engine does not run on a GPU, or not on one of these.
    """
    inputs = extractor.record.inputs
    label = extractor.record.targets[0]
    if not isinstance(extractor.session, DeviceSession):
        raise UsageError(
            f"the engine {label} runs on the CPU and uses all cores, so --devices does not apply",
            hint="--target or --precision choose another engine; zoo show lists them",
        )
    gpus = visible_gpus(run)
    fit = [number for number, gpu in enumerate(gpus) if gpu.arch in inputs.archs]
    numbers = fit if devices == "all" else list(devices)
    wrong = [number for number in numbers if number not in fit]
    if wrong or not numbers:
        raise UsageError(
            f"the engine {label} does not run on GPU {', '.join(map(str, wrong)) or 'all'}",
            hint=f"it was built for {' or '.join(inputs.archs)}; on this machine it runs on GPU "
            f"{', '.join(map(str, fit)) or 'none'}",
        )
    return {_name(number, turn): _environment(gpus[number]) for number, turn in _counted(numbers)}


def own_gpu(extractor: Extractor, run: Run = run_command) -> Environments:
    """Returns a process on the GPU that an engine is loaded on; none if it can't have one."""
    session = extractor.session
    if not isinstance(session, DeviceSession) or extractor.file is None:
        return {}
    return {
        _name(number): _environment(gpu)
        for number, gpu in enumerate(visible_gpus(run))
        if gpu.uuid == f"GPU-{session.device.uuid}"
    }


def idle_gpus(extractor: Extractor, run: Run = run_command) -> Environments:
    """Returns a process for each GPU that a long pass uses unasked, the engine's own first.

    Others are used if the engine runs on them and they have room for its processes: where somebody
    computes, memory is taken.
    """
    own = own_gpu(extractor, run)
    if not own:
        return {}
    need = _needed_mib(extractor)
    return {
        **own,
        **{
            _name(number): _environment(gpu)
            for number, gpu in enumerate(visible_gpus(run))
            if gpu.arch in extractor.record.inputs.archs and (gpu.free_mib or 0) >= need
        },
    }


def doubled(
    processes: Environments, extractor: Extractor, workers: int | None, run: Run = run_command
) -> Environments:
    """Returns two processes for each GPU instead of one, where that makes a long pass faster.

    While Python prepares the next batch of one, the GPU has photos of the other to decode.

    Args:
        processes: A process for each GPU.
        extractor: The engine.
        workers: Number of decoding threads; by default the number of cores.
        run: Runs a command.

    Returns:
        Twice as many, or the same if the GPU does not decode photos, or a GPU has too little memory
        or too few cores for two, or has two already.
    """
    gpus = {gpu.uuid: gpu for gpu in visible_gpus(run)}
    used = [environment["CUDA_VISIBLE_DEVICES"] for environment in processes.values()]
    need = _needed_mib(extractor)
    if (
        not nvjpeg.installed()
        or (workers or cores()) < _LEAST_CORES * len(used)
        or len(set(used)) < len(used)
        or any((gpus[uuid].free_mib or 0) < need for uuid in used)
    ):
        return processes
    return {
        name: environment
        for first, environment in processes.items()
        for name in (first, f"{first} (2)")
    }


def _needed_mib(extractor: Extractor) -> int:
    """Returns the memory for two processes on a GPU and, on one of them, this process."""
    return 3 * (_PROCESS_MIB + _COPIES * extractor.record.engine.size // 2**20)


def _environment(gpu: VisibleGpu) -> Mapping[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpu.uuid}


def _name(number: int, turn: int = 1) -> str:
    return f"GPU {number}" + (f" ({turn})" if turn > 1 else "")


def _counted(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields each number and how often it has come."""
    for place, number in enumerate(numbers):
        yield number, numbers[: place + 1].count(number)
