"""Resources: what a worker of a cluster provides, and what a job needs.

A resource is a word: ``export``; ``sm86-trt11.4`` for engines that the worker can build;
``run-sm86-trt11.4`` for engines that it can also run (TensorRT-RTX builds for GPUs that the worker
does not have); ``trt11.4.0.8-cuda13-linux-x86_64`` for the exact toolchain, which is part of an
engine's key. One worker must provide everything that a job needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pydantic import BaseModel, ConfigDict, TypeAdapter
from typing_extensions import assert_never

from builders.jobs.messages import BuildJob, Job, VerifyJob, engine_job
from zoo.schema.targets import Arch, Label, RuntimeLine, Toolchain, arch_of

EXPORT = "export"
_RUN = "run-"

RunsOn = Callable[[Sequence[Arch], Toolchain], Arch | None]
"""Returns the first architecture on which a toolchain's engines can be run, None if none."""


class Slot(BaseModel):
    """A worker process, which runs one job at a time.

    Attributes:
        name: ``host-gpu0``, ``host-cpu``; unique in a cluster.
        host: Name of the machine.
        gpu: UUID of the GPU that it alone uses; None for a slot without one.
        resources: The resources that it provides.
        toolchains: The toolchains that it has.
        python: The Python that builds and verifies; the worker's own if empty.
        version: Its version of this project.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    host: str
    gpu: str | None = None
    resources: frozenset[str]
    toolchains: tuple[Toolchain, ...] = ()
    python: str = ""
    version: str

    def has(self, needs: Iterable[str]) -> bool:
        """Whether it provides all of these resources."""
        return self.resources.issuperset(needs)

    @property
    def builds(self) -> list[str]:
        """What it can export or build, for messages: ``export``, ``sm86-rtx1.7``."""
        exact = {toolchain_name(chain) for chain in self.toolchains}
        return sorted(
            word for word in self.resources if word not in exact and not word.startswith(_RUN)
        )


parse_slots: TypeAdapter[list[Slot]] = TypeAdapter(list[Slot])


def build_name(arch: Arch, line: RuntimeLine) -> str:
    """Returns the resource for building, ``sm86-trt11.4``."""
    return Label(archs=(arch.name,), line=str(line)).place


def run_name(arch: Arch, line: RuntimeLine) -> str:
    """Returns the resource for running engines, ``run-sm86-trt11.4``."""
    return f"{_RUN}{build_name(arch, line)}"


def archs_run(resources: Iterable[str]) -> set[str]:
    """Returns the names of the architectures whose engines can be run."""
    return {arch_of(word.removeprefix(_RUN)) for word in resources if word.startswith(_RUN)}


def toolchain_name(toolchain: Toolchain) -> str:
    """Returns the resource for exactly this toolchain."""
    cuda = f"-cuda{toolchain.cuda}" if toolchain.cuda else ""
    system = f"{toolchain.os}-{toolchain.machine}"
    return f"{toolchain.kind}{toolchain.version}{cuda}-{system}"


def needs_of(job: Job, runs_on: RunsOn) -> frozenset[str]:
    """Returns the resources that a job needs."""
    engine = engine_job(job)
    if engine is None:
        return frozenset({EXPORT})
    inputs, spec = engine.inputs, engine.verification
    archs = [Arch(name) for name in inputs.archs]
    line, needs = inputs.toolchain.line, {toolchain_name(inputs.toolchain)}
    match engine:
        case BuildJob():
            needs |= {build_name(arch, line) for arch in archs}
        case VerifyJob():
            pass
        case _:
            assert_never(engine)
    if spec is not None:
        arch = runs_on(archs, inputs.toolchain) or archs[0]
        needs.add(run_name(arch, line))
    return frozenset(needs)


def describe(slots: Iterable[Slot]) -> str:
    """Returns what workers can build, for messages: ``export (2), sm86-trt11.4 (1)``."""
    count: dict[str, int] = {}
    for slot in slots:
        for word in slot.builds:
            count[word] = count.get(word, 0) + 1
    listed = ", ".join(f"{word} ({number})" for word, number in sorted(count.items()))
    return f"the cluster has {listed}" if listed else "the cluster has no workers"
