"""ModelOpt: NVIDIA's passes over an ONNX, run in a separate environment.

``nvidia-modelopt`` 0.47 pins an older onnx and a GPU build of ONNX Runtime. These commands install
all that its two passes import on a CPU into a venv (torch's CPU build suffices)::

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
"""ModelOpt's methods to choose a range; entropy is its default."""


class ModelOpt:
    """ModelOpt in another Python.

    Args:
        python: Interpreter of its environment.

    Raises:
        UsageError: ModelOpt can't be imported there.
    """

    def __init__(self, python: Path) -> None:
        self._python = python
        code = "import modelopt, modelopt.onnx.autocast; print(modelopt.__version__)"
        try:
            self.version = self._run(["-c", code]).split()[-1]
        except (OSError, RunError) as error:
            raise UsageError(
                f"--modelopt-python {python}: {error}",
                hint="benchmarks/studies/modelopt.py has the commands that install it",
            ) from error

    def autocast(self, fp32: Path, made: Path, images: npt.NDArray[np.float32]) -> onnx.ModelProto:
        """Converts an fp32 ONNX to fp16 by AutoCast with its defaults.

        Args:
            fp32: The ONNX.
            made: File for the result.
            images: Images to measure on, ``(N, 3, H, W)``; as many as memory allows are used.

        Raises:
            RunError: AutoCast fails.
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
        """Returns an fp32 ONNX with Q/DQ placed by ModelOpt, the remaining layers in fp32.

        Args:
            fp32: The ONNX.
            made: File for the result.
            images: Calibration images, ``(N, 3, H, W)``.
            ranges: Method to choose the range of an activation.

        Raises:
            RunError: ModelOpt fails.
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
            messages = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RunError(f"ModelOpt failed: {messages[-1][:300]}")
        return done.stdout


def not_above(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a network converted down to the opset of its source if its own is higher.

    ModelOpt raises the opset to 19. TensorRT 8.6 supports the axes of a mean only as an attribute,
    as in opset 17 and earlier; without them it averages over all axes.

    Args:
        model: The network.
        source: The network that it was made from.
    """
    from onnx import version_converter

    made, wanted = _opset(model), _opset(source)
    return version_converter.convert_version(model, wanted) if made > wanted else model


def _opset(model: onnx.ModelProto) -> int:
    domains = ("", "ai.onnx")
    return int(next(opset.version for opset in model.opset_import if opset.domain in domains))


def _calibration(images: npt.NDArray[np.float32], made: Path) -> Path:
    """Writes images in ModelOpt's format, next to its result."""
    path = made.with_suffix(".npz")
    np.savez(path, images=images)
    return path


def _bytes_of_activations(fp32: Path) -> int:
    """Returns the total size in bytes of a network's activations for one image."""
    import onnx

    from builders.precision.graph import Graph

    graph = Graph(onnx.load(fp32))
    return 4 * sum(graph.elements(name) for node in graph.nodes for name in node.output
                   if name in graph.shapes)  # fmt: skip
