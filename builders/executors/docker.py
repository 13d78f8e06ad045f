"""The docker executor: builds and verifications run in the image of their TensorRT line.

A container has no network, a read-only root, no capabilities and no root user. It sees the folder
that its worker writes to and, read-only, the store. Its environment is the image's plus the
``--env`` options here: no credentials, no passphrase. Exports download weights and need torch, so
they run in the farm's own Python, as without containers.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from typing_extensions import assert_never

from builders.executors import images
from builders.executors.base import Outcome, ThisMachine
from builders.executors.local import LocalExecutor
from builders.jobs.messages import BuildJob, EngineJob, Job, VerifyJob, engine_job
from builders.jobs.output_files import JOB, WORK, write_file
from builders.jobs.progress import Report
from builders.jobs.tactics import lock_of
from builders.toolchains.installed import choose_toolchains
from zoo.client.host import IMAGE, describe_gpu, local_archs
from zoo.repository.repository import Repository
from zoo.schema.layout import blob_key
from zoo.schema.records import Blob, TimingCacheRecord
from zoo.schema.runtimes import cpu_runtimes
from zoo.schema.targets import (
    Arch,
    RuntimeKind,
    RuntimeLine,
    Toolchain,
    gpu_lines,
    known_lines,
    on_gpu,
)
from zoo.stores import LocalStore, open_store
from zoo.util.causes import end_of
from zoo.util.errors import JobError, MissingPackageError, NotRunError, TargetError, UsageError

_FARM = "caft-zoo.farm"
"""Label that names the machine and process that started a container."""

_USER = 1000
"""User in a container if the farm runs as root; the same as in the Dockerfiles."""

_GIB = 2**30
_TOOLCHAINS = TypeAdapter(dict[RuntimeKind, Toolchain])
_ISOLATION = (
    "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
    "--pids-limit=4096",
)  # fmt: skip


class DockerExecutor(ThisMachine):
    """Runs each build and verification in a container of its own, one at a time.

    Args:
        timeout: Seconds that a job may take.
        memory: Bytes of memory that a container may have; None for no limit.
        docker: The ``docker`` program.

    Raises:
        MissingPackageError: ``docker`` is not installed.
        UsageError: ``docker`` can't reach its engine.
    """

    def __init__(
        self, timeout: float = 3600, *, memory: int | None = None, docker: str = "docker"
    ) -> None:
        self._docker = docker
        self._timeout = timeout
        self._memory = memory
        self._exports = LocalExecutor(timeout, memory=memory)
        self._toolchains = cache(self._toolchains_of)
        self._remove_abandoned()

    def choose_toolchains(
        self, archs: Sequence[Arch], line: RuntimeLine | None
    ) -> dict[Arch, Toolchain]:
        """Chooses the runtime for each architecture among those of the local images.

        Raises:
            UsageError: The line does not exist, or there is no GPU for it.
            TargetError: No local image supports one of the architectures.
        """

        def find(kind: RuntimeKind) -> Toolchain | None:
            lines = [line] if line and line.kind == kind else _lines_of(kind)
            toolchains = (self._toolchains(_tag(candidate)).get(kind) for candidate in lines)
            return next(filter(None, toolchains), None)

        if any(arch.is_cpu for arch in archs) and not any(map(find, cpu_runtimes())):
            raise TargetError(f"there is no image {images.image_of('').tag}", hint="make image")
        if line in gpu_lines() and find(line.kind) is None:
            raise TargetError(
                f"there is no image {_tag(line)}", hint=f"make image TRT={line.asked}"
            )
        return choose_toolchains(archs, line, find=find)

    def run(self, job: Job, folder: Path, report: Report) -> Outcome:
        """Runs a job; see :class:`~builders.executors.base.Executor`."""
        engine = engine_job(job)
        if engine is None:
            return self._exports.run(job, folder, report)
        name = f"caft-zoo-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        with _with_local_blobs(engine) as (local_job, store):
            options = (f"--name={name}", _mount(folder / WORK), _mount(store, ",readonly"))
            command = (
                *self._command(_tag(engine.inputs.toolchain.line), options),
                "builders.worker",
            )
            container = _Container(self._output_of, name)
            executor = LocalExecutor(self._timeout, build_command=command, around=container.running)
            try:
                return executor.run(local_job, folder, report)
            except JobError as error:
                if container.out_of_memory:
                    raise JobError(
                        "the container was stopped: it needed more memory than the limit of "
                        f"{(self._memory or 0) / _GIB:.2f} GiB",
                        hint="MEMORY= (--memory) allows a job more GiB",
                    ) from error
                raise
            finally:
                # A kept failure is reproduced without a container, so keep the job as it was.
                write_file(folder / JOB, job.model_dump_json(indent=1).encode())

    def _command(self, image: str, options: Sequence[str] = ()) -> list[str]:
        """Returns the command that runs a Python module in a container, without the module's name.

        Names the image by its digest, so a tag that moves meanwhile has no effect.
        """
        digest = self._output_of("image", "inspect", "--format={{.Id}}", image)
        if digest is None:
            raise NotRunError(f"there is no image {image}", hint="make image builds it")
        user, group = _user()
        memory = [f"--memory={self._memory}", f"--memory-swap={self._memory}"]
        return [
            self._docker, "run", "--init", "--log-driver=none", *_ISOLATION,
            f"--label={_FARM}={platform.node()}/{os.getpid()}",
            f"--user={user}:{group}", "--tmpfs=/tmp:mode=1777", "--workdir=/tmp",
            f"--env={IMAGE}={digest}",
            *(memory if self._memory else []),
            *(["--gpus=all"] if local_archs() else []),
            *options, digest, "python3", "-m",
        ]  # fmt: skip

    def _toolchains_of(self, image: str) -> dict[RuntimeKind, Toolchain]:
        """Runs an image to list its runtimes; empty if there is no such image.

        Raises:
            TargetError: Its output can't be read.
        """
        if self._output_of("image", "inspect", "--format={{.Id}}", image) is None:
            return {}
        command = [*self._command(image, ["--rm"]), "zoo.client.host"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return _TOOLCHAINS.validate_json(done.stdout)
        except ValidationError as error:
            message = end_of(done.stderr)
            raise TargetError(
                f"image {image} can't list its runtimes: {message}",
                hint="make image builds it again",
            ) from error

    def _output_of(self, *arguments: str) -> str | None:
        """Runs docker and returns its output; None if it fails."""
        done = subprocess.run(
            [self._docker, *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    def _remove_abandoned(self) -> None:
        """Removes containers that killed farms of this machine left behind."""
        command = [self._docker, "ps", "--all", f"--filter=label={_FARM}"]
        row = f'--format={{{{.ID}}}} {{{{.Label "{_FARM}"}}}}'
        try:
            done = subprocess.run([*command, row], capture_output=True, text=True, check=False)
        except OSError as error:
            raise MissingPackageError(
                f"EXECUTOR=docker: {self._docker} does not start: {error.strerror}",
                hint="install Docker Engine",
            ) from error
        if done.returncode:
            raise UsageError(
                f"EXECUTOR=docker: {end_of(done.stderr)}",
                hint="start the engine, or name it in DOCKER_HOST",
            )
        for line in done.stdout.splitlines():
            container, _, farm = line.partition(" ")
            host, _, process = farm.rpartition("/")
            if host == platform.node() and not Path(f"/proc/{process}").exists():
                self._output_of("rm", "--force", container)


class _Container:
    """A running container.

    Args:
        output_of: Runs docker and returns its output, or None if it fails.
        name: Name of the container.

    Attributes:
        out_of_memory: Whether it was killed because it reached its memory limit.
    """

    def __init__(self, output_of: Callable[..., str | None], name: str) -> None:
        self._output_of, self._name = output_of, name
        self.out_of_memory = False

    @contextmanager
    def running(self, work: Path) -> Iterator[None]:
        """Makes the container's user own the work folder while it runs; removes it afterwards."""
        _change_owner(work, *_user())
        try:
            yield
        finally:
            state = self._output_of("inspect", "--format={{.State.OOMKilled}}", self._name)
            self.out_of_memory = state == "true"
            self._output_of("rm", "--force", self._name)
            _change_owner(work, os.getuid(), os.getgid())


def _tag(line: RuntimeLine) -> str:
    """Returns the image of a line; runtimes for the CPU are in the image that exports."""
    return images.image_of(line.asked if on_gpu(line.kind) else "").tag


def _lines_of(kind: RuntimeKind) -> list[RuntimeLine]:
    """Returns the lines of a runtime that have an image, in the order of the table."""
    lines = [
        RuntimeLine.parse(name) for name in known_lines() if kind == RuntimeLine.parse(name).kind
    ]
    have_image = images.images().keys()
    return [line for line in lines if not on_gpu(kind) or str(line) in have_image]


def _user() -> tuple[int, int]:
    """Returns user and group of a container: the farm's, so that the farm owns its files.

    If the farm runs as root, they are those of the images.
    """
    return (os.getuid(), os.getgid()) if os.getuid() else (_USER, _USER)


def _change_owner(folder: Path, user: int, group: int) -> None:
    """Changes the owner of a folder and its contents if the farm runs as root; only root can."""
    if os.getuid() == 0:
        os.chown(folder, user, group, follow_symlinks=False)
        for _, folders, names, descriptor in os.fwalk(folder, follow_symlinks=False):
            for name in (*folders, *names):
                os.chown(name, user, group, dir_fd=descriptor, follow_symlinks=False)


def _mount(folder: Path, options: str = "") -> str:
    """Returns the option that mounts a folder under its own path."""
    path = folder.resolve()
    fields = [f"source={path}", f"target={path}"]
    quoted = [f'"{field}"' if "," in field else field for field in fields]
    return f"--mount=type=bind,{','.join(quoted)}{options}"


@contextmanager
def _with_local_blobs(job: EngineJob) -> Iterator[tuple[Job, Path]]:
    """Yields a job whose blobs are in a local store, and the folder of that store.

    Blobs in a bucket are downloaded and checked first, so the container needs no network or keys.
    Those that are stored as chunks only are put together, so it needs no zstd either.
    """
    repository = Repository(open_store(job.store))
    place, inputs = repository.store.local_path("repository.json"), _inputs(job, repository)
    if place is not None and all(repository.blobs.path(blob) is not None for blob in inputs):
        yield job, place.parent
        return
    with tempfile.TemporaryDirectory(prefix="inputs-") as folder:
        os.chmod(folder, 0o755)  # the container's user reads it
        here = Repository(LocalStore(Path(folder)))
        for blob in inputs:
            _fetch(repository, here, blob)
        if (cache_record := _timing_cache(job, repository)) is not None:
            _fetch(repository, here, cache_record.cache)
            here.put_timing_cache(cache_record)
        yield job.model_copy(update={"store": here.store.url}), Path(folder)


def _inputs(job: EngineJob, repository: Repository) -> list[Blob]:
    """Returns the blobs that a job needs."""
    match job:
        case BuildJob():
            lock = lock_of(job.inputs)
            found = [job.onnx, lock and repository.blobs.find(lock)]
        case VerifyJob():
            found = [job.record.engine]
        case _:
            assert_never(job)
    if job.verification is not None:
        found.append(job.verification.golden)
    return [blob for blob in found if isinstance(blob, Blob)]


def _timing_cache(job: EngineJob, repository: Repository) -> TimingCacheRecord | None:
    """Returns the timing cache of this machine's GPU that a job may use."""
    gpu = describe_gpu() if isinstance(job, BuildJob) else None
    if gpu is None or gpu.name is None:
        return None
    return repository.timing_cache(gpu.name, job.inputs.toolchain)


def _fetch(repository: Repository, here: Repository, blob: Blob) -> None:
    path = here.store.local_path(blob_key(blob.sha256))
    assert path is not None
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        repository.blobs.fetch(blob, path)
