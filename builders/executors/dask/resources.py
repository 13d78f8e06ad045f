"""Resources: what a worker of a cluster announces, and what a job needs of one.

A resource is a word: ``export``; ``sm86-trt11.4``, engines that the worker can build;
``run-sm86-trt11.4``, engines that it can run as well (TensorRT-RTX builds for GPUs that are not
there); ``trt11.4.0.8-cuda13-linux-x86_64``, the toolchain to the last digit, which is part of an
engine's key. A job needs all of its words of one worker.
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
"""Returns the first of some architectures on which a toolchain's engines can be run."""


class Slot(BaseModel):
    """One worker process: it runs one job at a time.

    Attributes:
        name: ``host-gpu0``, ``host-cpu``; unique in a cluster.
        host: Of the machine.
        gpu: Which GPU it has to itself, None for a slot that has none.
        resources: What it announces.
        toolchains: The runtimes that it has.
        python: The Python that builds and verifies; the worker's own when empty.
        version: Of this project.
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
        """Whether it can do what needs these."""
        return self.resources.issuperset(needs)

    @property
    def builds(self) -> list[str]:
        """What it can build, as people write it: ``export``, ``sm86-rtx1.7``."""
        exact = {toolchain_name(chain) for chain in self.toolchains}
        return sorted(
            word for word in self.resources if word not in exact and not word.startswith(_RUN)
        )


parse_slots: TypeAdapter[list[Slot]] = TypeAdapter(list[Slot])


def build_name(arch: Arch, line: RuntimeLine) -> str:
    """Returns the word for building, ``sm86-trt11.4``."""
    return Label(archs=(arch.name,), line=str(line)).place


def run_name(arch: Arch, line: RuntimeLine) -> str:
    """Returns the word for running what was built, ``run-sm86-trt11.4``."""
    return f"{_RUN}{build_name(arch, line)}"


def archs_run(resources: Iterable[str]) -> set[str]:
    """Returns the names of the architectures whose engines can be run."""
    return {arch_of(word.removeprefix(_RUN)) for word in resources if word.startswith(_RUN)}


def toolchain_name(toolchain: Toolchain) -> str:
    """Returns the word for exactly this toolchain."""
    cuda = f"-cuda{toolchain.cuda}" if toolchain.cuda else ""
    system = f"{toolchain.os}-{toolchain.machine}"
    return f"{toolchain.kind}{toolchain.version}{cuda}-{system}"


def needs_of(job: Job, runs_on: RunsOn) -> frozenset[str]:
    """Returns what a job needs of the one worker that runs it."""
    engine = engine_job(job)
    if engine is None:
        return frozenset({EXPORT})
    inputs, prove = engine.inputs, engine.prove
    archs = [Arch(name) for name in inputs.archs]
    line, needs = inputs.toolchain.line, {toolchain_name(inputs.toolchain)}
    match engine:
        case BuildJob():
            needs |= {build_name(arch, line) for arch in archs}
        case VerifyJob():
            pass
        case _:
            assert_never(engine)
    if prove is not None:
        arch = runs_on(archs, inputs.toolchain) or archs[0]
        needs.add(run_name(arch, line))
    return frozenset(needs)


def describe(slots: Iterable[Slot]) -> str:
    """Says what workers can do, for a refusal: ``2 x export; 1 x sm86-trt11.4``."""
    count: dict[str, int] = {}
    for slot in slots:
        for word in slot.builds:
            count[word] = count.get(word, 0) + 1
    said = ", ".join(f"{word} ({number})" for word, number in sorted(count.items()))
    return f"the cluster has {said}" if said else "the cluster has no workers"
