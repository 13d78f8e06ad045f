"""A stand-in worker that speaks the real protocol and then misbehaves, harmlessly."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOST_FILE = "host-file"
SECRET = "a line of the farm's machine"

Result = dict[str, Any]


def array(descr: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """Returns an array as ``.npy``, whether or not its header is true."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


IMAGES, FEATURES = array("|u1", (2, 1, 1, 3), bytes(6)), array("<f4", (2, 4), bytes(32))
EDGES = array("<f4", (5, 4), bytes(80))
ARRAYS: dict[str, dict[str, bytes]] = {
    "golden.npz": {"edge_features": EDGES, "features": FEATURES, "images": IMAGES},
    "labelled.npz": {
        "images": IMAGES, "features": FEATURES, "labels": array("<i8", (2,), bytes(16)),
    },
}  # fmt: skip
"""The arrays that a worker which behaves returns, by file."""

ONNX = bytes.fromhex(
    "08083a480a0f0a01691201662207466c617474656e1201675a1c0a016912170a1508011211"
    "0a031201620a0208030a0208010a02080162140a0166120f0a0d080112090a031201620a02080342040a001011"
)
"""A network that flattens images of one pixel."""


def write_arrays(path: Path, arrays: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)


def as_link(name: str) -> Callable[[Path, Path, Result], None]:
    """Puts a link to a file of the farm's machine in a file's place."""

    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).unlink(missing_ok=True)
        (output / name).symlink_to(host)

    return misbehave


def _hard_link(output: Path, host: Path, result: Result) -> None:
    (output / "engine").unlink()
    (output / "engine").hardlink_to(host)


def _fifo(name: str) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).unlink(missing_ok=True)
        os.mkfifo(output / name)

    return misbehave


def _contains(name: str, content: bytes) -> Callable[[Path, Path, Result], None]:
    """Replaces a file's content."""

    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).write_bytes(content)

    return misbehave


def _arrays(name: str, **changes: Any) -> Callable[[Path, Path, Result], None]:
    """Replaces arrays of an ``.npz``, or leaves one out where a change is None."""

    def misbehave(output: Path, host: Path, result: Result) -> None:
        arrays = {key: value for key, value in {**ARRAYS[name], **changes}.items() if value}
        write_arrays(output / name, arrays)

    return misbehave


def _compressed(output: Path, host: Path, result: Result) -> None:
    with zipfile.ZipFile(output / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ARRAYS["golden.npz"].items():
            archive.writestr(f"{name}.npy", content)


def _folder(output: Path, host: Path, result: Result) -> None:
    (output / "engine").unlink()
    (output / "engine").mkdir()


def _large(name: str, size: int) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        (output / name).touch()
        os.truncate(output / name, size)

    return misbehave


def _returns(**fields: Any) -> Callable[[Path, Path, Result], None]:
    def misbehave(output: Path, host: Path, result: Result) -> None:
        text = json.dumps(fields).replace("HOST", str(host))
        result.update(json.loads(text))

    return misbehave


BUILD: dict[str, Callable[[Path, Path, Result], None]] = {
    "absolute path": _returns(files={"inspector": "HOST"}),
    "unknown side file": _returns(files={"notes": "inspector.json"}),
    "parent": _returns(engine="../host-file"),
    "dots": _returns(engine=".."),
    "the farm's name": _returns(engine="job.json"),
    "one file twice": _returns(timing_cache="engine"),
    "absolute timing cache": _returns(timing_cache="HOST", machine={"gpu": {"name": "a GPU"}}),
    "no engine": _returns(engine=None),
    "missing file": _returns(engine="another"),
    "huge number": _returns(facts={"n": 10**100}),
    "another kind of result": _returns(kind="reference"),
    "engine is a link": as_link("engine"),
    "inspector is a link": as_link("inspector.json"),
    "timing cache is a link": as_link("cache"),
    "log is a link": as_link("log.txt"),
    "result is a link": as_link("result.json"),
    "engine is a hard link": _hard_link,
    "engine is a FIFO": _fifo("engine"),
    "log is a FIFO": _fifo("log.txt"),
    "result is a FIFO": _fifo("result.json"),
    "engine is a folder": _folder,
    "engine is a text": _contains("engine", b"an engine that never ran " * 800),
    "engine is no network": _contains("engine", b"\x08\x0a\x3a\x00"),
    "result is too long": _large("result.json", 2**23 + 1),
    "engine is too large": _large("engine", 2**12 + 1),
}
"""What a worker may do wrong in a build; the test lets an engine have 4 KiB."""

EXPORT: dict[str, Callable[[Path, Path, Result], None]] = {
    "golden is an absolute path": _returns(golden="HOST"),
    "golden is a link": as_link("golden.npz"),
    "golden is missing": _returns(golden="another.npz"),
    "golden is no archive": _contains("golden.npz", b"no golden file"),
    "golden lacks an array": _arrays("golden.npz", features=None),
    "golden has features of other edge pictures": _arrays(
        "golden.npz", edge_features=array("<f4", (4, 4), bytes(64))
    ),
    "golden has edge features of another width": _arrays(
        "golden.npz", edge_features=array("<f4", (5, 3), bytes(60))
    ),
    "golden has a pickle": _arrays("golden.npz", features=array("|O", (1,), b"cos\nsystem\n.")),
    "golden claims terabytes": _arrays("golden.npz", images=array("<f4", (2, 2**40), b"")),
    "golden has other numbers of rows": _arrays("golden.npz", images=array("|u1", (3,), bytes(3))),
    "golden is compressed": _compressed,
    "golden has a broken header": _arrays("golden.npz", images=b"\x93NUMPY\x01\x00\xff\xff{"),
    "onnx is a link": as_link("fp32.onnx"),
    "onnx is no protocol buffer": _contains("fp32.onnx", b"no ONNX model"),
    "onnx is cut off": _contains("fp32.onnx", b"\x08\x0a\x3a\xff\xff\x01"),
    "onnx is empty": _contains("fp32.onnx", b""),
    "onnx has no graph": _contains("fp32.onnx", b"\x08\x0a"),
    "onnx has an empty graph": _contains("fp32.onnx", b"\x08\x0a\x3a\x00"),
    "state is a link": as_link("state"),
    "state is an absolute path": _returns(state="HOST"),
    "exports are missing": _returns(exports=[]),
}

REFERENCE: dict[str, Callable[[Path, Path, Result], None]] = {
    "photos are an absolute path": _returns(file="HOST"),
    "photos are a link": as_link("labelled.npz"),
    "photos are no archive": _contains("labelled.npz", b"no arrays"),
    "photos lack labels": _arrays("labelled.npz", labels=None),
    "photos' features are whole numbers": _arrays(
        "labelled.npz", features=array("<i4", (2, 4), bytes(32))
    ),
}

VERIFY: dict[str, Callable[[Path, Path, Result], None]] = {
    "features are a link": as_link("labelled.npy"),
    "features are no array": _contains("labelled.npy", b"no array"),
    "features are an archive": lambda output, host, result: write_arrays(
        output / "labelled.npy", ARRAYS["labelled.npz"]
    ),
    "features are a pickle": _contains("labelled.npy", array("|O", (1,), b"cos\nsystem\n.")),
    "features claim terabytes": _contains("labelled.npy", array("<f4", (2**40, 4), bytes(32))),
}

MISBEHAVIOURS = {"build": BUILD, "export": EXPORT, "reference": REFERENCE, "verify": VERIFY}
"""What a worker may do wrong, by the kind of its job."""


def _built(output: Path, job: dict[str, Any]) -> Result:
    (output / "engine").write_bytes(ONNX)
    for name in ("inspector.json", "cache"):
        (output / name).write_text(f"made here: {name}")
    return {
        "kind": "build", "engine": "engine", "files": {"inspector": "inspector.json"},
        "timing_cache": "cache", "facts": {}, "precision_proven": False, "verification": None,
        "benchmark": [], "machine": {"gpu": {"name": "a GPU"}}, "cost": {},
    }  # fmt: skip


def _exported(output: Path, job: dict[str, Any]) -> Result:
    write_arrays(output / "golden.npz", ARRAYS["golden.npz"])
    (output / "fp32.onnx").write_bytes(ONNX)
    (output / "state").write_text("made here: state")
    export = {
        "inputs": job["inputs"]["fp32"], "onnx": "fp32.onnx", "parameters": 1,
        "largest_tensor": 1, "check": {},
    }  # fmt: skip
    return {
        "kind": "export", "golden": "golden.npz", "state": "state", "exports": [export], "cost": {},
    }  # fmt: skip


def _referred(output: Path, job: dict[str, Any]) -> Result:
    write_arrays(output / "labelled.npz", ARRAYS["labelled.npz"])
    return {"kind": "reference", "file": "labelled.npz", "cost": {}}


def _verified(output: Path, job: dict[str, Any]) -> Result:
    (output / "labelled.npy").write_bytes(FEATURES)
    verification: Result = {"passed": True, "reason": None, "batches": []}
    verification["labelled"] = "labelled.npy"
    return {
        "kind": "build", "engine": None, "facts": {}, "precision_proven": False,
        "verification": verification, "benchmark": [], "machine": {}, "cost": {},
    }  # fmt: skip


WORK = {"build": _built, "export": _exported, "reference": _referred, "verify": _verified}


def work(case: str, job_file: Path, output: Path, host: Path) -> None:
    """Does the job, and then what the case says; ``job.json`` becomes a link in every case."""
    job = json.loads(job_file.read_text())
    result = WORK[job["kind"]](output, job)
    as_link("job.json")(output, host, result)
    if case != "nothing":
        MISBEHAVIOURS[job["kind"]][case](output, host, result)
    if not os.path.lexists(output / "result.json"):
        (output / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":  # CASE-FILE [docker's or Python's words] job.json output
    case_file = Path(sys.argv[1])
    work(
        case_file.read_text(), Path(sys.argv[-2]), Path(sys.argv[-1]), case_file.parent / HOST_FILE
    )
