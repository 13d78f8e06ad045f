"""Images that lie in a GPU's memory are checked before TensorRT reads them. No GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.goldens import raises_golden

from zoo.runtime.cuda import check_device_images, device_view
from zoo.util.errors import RunError

SHAPE = (3, 32, 32)
CONTIGUOUS = (3 * 32 * 32, 32 * 32, 32, 1)
CHANNELS_LAST = (3 * 32 * 32, 1, 32 * 3, 3)
STREAM: Any = SimpleNamespace(handle=1)


def check(rows: int, **changes: Any) -> None:
    """Checks what :func:`~zoo.runtime.cuda.device_view` would give of a batch."""
    values = {
        "shape": (rows, *SHAPE),
        "strides": CONTIGUOUS,
        "dtype": np.dtype(np.float32),
        "is_device_accessible": True,
        "device_id": 0,
    }
    view = SimpleNamespace(**{**values, **changes})
    check_device_images(view, SHAPE, np.dtype(np.float32), 0)


@pytest.mark.parametrize("rows", [1, 5])
def test_contiguous_images_are_taken(rows: int) -> None:
    check(rows)
    check(rows, strides=None)


def test_how_far_the_next_image_would_be_does_not_matter_for_one() -> None:
    check(1, strides=(1, *CONTIGUOUS[1:]))


@pytest.mark.parametrize("rows", [1, 5])
def test_channels_last_is_refused(rows: int) -> None:
    with raises_golden(RunError, "runtime/not-contiguous-in"):
        check(rows, strides=CHANNELS_LAST)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_device_accessible": False}, "images are in host memory"),
        ({"device_id": 1}, "images are in memory of GPU 1, but the engine runs on GPU 0"),
        ({"dtype": np.dtype(np.float16)}, "images are float16, but the engine needs float32"),
        (
            {"shape": (2, 3, 16, 16)},
            r"shape \(2, 3, 16, 16\), but the engine needs \(N, 3, 32, 32\)",
        ),
        ({"shape": (3, 32, 32)}, r"shape \(3, 32, 32\)"),
        ({"shape": (0, 3, 32, 32)}, "N >= 1"),
    ],
)
def test_what_the_engine_does_not_take_is_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RunError, match=words):
        check(2, **changes)


@pytest.mark.parametrize("kind", [NotImplementedError, TypeError])
def test_a_type_that_numpy_has_not_is_a_sentence(kind: type[Exception]) -> None:
    class View:
        is_device_accessible = True
        device_id = 0

        @property
        def dtype(self) -> Any:
            raise kind("no bfloat16 here")

    with raises_golden(RunError, "runtime/bfloat16-without-numpy"):
        check_device_images(View(), SHAPE, np.dtype(np.float32), 0)


@pytest.mark.parametrize("kind", [AssertionError, BufferError, RuntimeError])
def test_what_hands_out_nothing_is_a_sentence(kind: type[Exception]) -> None:
    class Tensor:
        def __dlpack_device__(self) -> tuple[int, int]:
            return 3, 0

        def __dlpack__(self, **arguments: Any) -> Any:
            raise kind("it requires a gradient")

    with raises_golden(RunError, "runtime/tensor-with-gradient"):
        device_view(Tensor(), STREAM)
