"""ModelOpt: NVIDIA's own passes over an ONNX, called in an environment of their own.

``nvidia-modelopt`` 0.47 pins an older onnx and a GPU build of ONNX Runtime. In a venv, this has all
that its two passes import on a CPU (of torch, its CPU build will do)::

    pip install --no-deps nvidia-modelopt==0.47.0 onnxscript onnxslim polygraphy cppimport lief
    pip install onnx==1.21.0 onnx-graphsurgeon onnx-ir onnxconverter-common==1.16.0 onnxruntime
    pip install torch==2.13.0 nvidia-ml-py omegaconf pydantic pyyaml rich scipy tqdm
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from zoo.util.errors import RunError, UsageError

if TYPE_CHECKING:
    import onnx

_MEMORY = 4 * 2**30  # bytes: AutoCast keeps every activation of every image
_SECONDS = 1800

ModelOptRange = Literal["entropy", "max"]
"""How ModelOpt tells a range; entropy is its default."""


class ModelOpt:
    """ModelOpt in another Python.

    Args:
        python: The interpreter of the environment that has it.

    Raises:
        UsageError: It does not have it.
    """

    def __init__(self, python: Path) -> None:
        self._python = python
        code = "import modelopt, modelopt.onnx.autocast; print(modelopt.__version__)"
        try:
            self.version = self._run(["-c", code]).split()[-1]
        except (OSError, RunError) as error:
            raise UsageError(
                f"--modelopt-python {python}: {error}",
                hint="benchmarks/studies/modelopt.py says how to make an environment for it",
            ) from error

    def autocast(self, fp32: Path, made: Path, images: npt.NDArray[np.float32]) -> onnx.ModelProto:
        """Returns what AutoCast makes of an fp32 ONNX, in fp16, with its own defaults.

        Args:
            fp32: The ONNX.
            made: Where its result goes.
            images: That it may look at, ``(N, 3, H, W)``; as many as memory allows are used.

        Raises:
            RunError: It fails.
        """
        most = max(1, _MEMORY // _bytes_of_activations(fp32))
        calibration = _calibration(images[:most], made)
        return self._make(
            ["modelopt.onnx.autocast", "--keep_io_types"],
            fp32, made, ["--calibration_data", str(calibration)],
        )  # fmt: skip

    def quantise(
        self, fp32: Path, made: Path, images: npt.NDArray[np.float32], ranges: ModelOptRange
    ) -> onnx.ModelProto:
        """Returns an fp32 ONNX with Q/DQ as ModelOpt places them, the rest in fp32.

        Args:
            fp32: The ONNX.
            made: Where its result goes.
            images: That it is calibrated on, ``(N, 3, H, W)``.
            ranges: How the range of an activation is told.

        Raises:
            RunError: It fails.
        """
        calibration = _calibration(images, made)
        return self._make(
            ["modelopt.onnx.quantization", "--quantize_mode", "int8"],
            fp32, made,
            ["--high_precision_dtype", "fp32", "--calibration_method", ranges,
             "--calibration_eps", "cpu", "--calibration_data_path", str(calibration)],
        )  # fmt: skip

    def _make(
        self, module: Sequence[str], fp32: Path, made: Path, options: Sequence[str]
    ) -> onnx.ModelProto:
        import onnx

        ends = ["--onnx_path", str(fp32), "--output_path", str(made)]
        self._run(["-m", *module, *ends, "--log_level", "WARNING", *options])
        model = not_above(onnx.load(made), onnx.load(fp32, load_external_data=False))
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def _run(self, arguments: Sequence[str]) -> str:
        try:
            done = subprocess.run(
                [str(self._python), *arguments],
                capture_output=True, text=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RunError(f"ModelOpt took more than {_SECONDS} s") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RunError(f"ModelOpt failed: {said[-1][:300]}")
        return done.stdout


def not_above(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a network in the opset of what it was made from, where its own is higher.

    ModelOpt raises it to 19. TensorRT 8.6 reads the axes of a mean as an attribute alone, as up to
    opset 17; without them it averages over everything.

    Args:
        model: The network.
        source: What it was made from.
    """
    from onnx import version_converter

    made, wanted = _opset(model), _opset(source)
    return version_converter.convert_version(model, wanted) if made > wanted else model


def _opset(model: onnx.ModelProto) -> int:
    return int(next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx")))


def _calibration(images: npt.NDArray[np.float32], made: Path) -> Path:
    """Writes images as ModelOpt takes them, beside what it makes."""
    path = made.with_suffix(".npz")
    np.savez(path, images=images)
    return path


def _bytes_of_activations(fp32: Path) -> int:
    """Returns the bytes of all of a network's activations for one image."""
    import onnx

    from builders.precision.graph import Graph

    graph = Graph(onnx.load(fp32))
    return 4 * sum(graph.elements(name) for node in graph.nodes for name in node.output
                   if name in graph.shapes)  # fmt: skip
