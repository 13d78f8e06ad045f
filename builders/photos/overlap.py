"""Recognises pans and zooms of a scene: two photos that show the same over most of their area.

Both are reduced to their edges and laid over each other at every shift and several scales; where
they correlate best, the common part is compared again at a higher resolution, because at a low one
unrelated photos correlate, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 256
"""Longer side of the grey picture that photos are compared by."""

_COARSE, _FINE = 48, 96
"""Longer side of what is laid over another photo, and of the common part."""

_SCALES = tuple(1.12**-step for step in range(6))
_NUDGES = (0.94, 0.97, 1.0, 1.03, 1.06)
"""Scales of the common part that lie between two of the scales before."""

_LEAST_AREA, _LEAST_SIDE = 0.4, 0.5
"""Least common part of the smaller photo."""

_CANDIDATE, SAME = 0.55, 0.77
"""Least correlation at the low resolution, and of the common part at the higher one.
docs/explanation/precision.md states how often frames reach it, and unrelated photos."""

_BLURS = (0.8, 2.5)
"""Between which two blurs the edges of the common part lie, in pixels."""

_COLOURS, _ALIKE = 4, 0.5
"""Levels of each colour channel, and the least share of the pixels whose colours agree. It spares
comparing photos of other things."""

_PLAIN = 1.0
"""Least variance of edges, in squared grey levels: sky matches sky at every shift."""

_DETAIL = 0.1
"""Least variance of fine edges over that of coarse ones. Pictures of a few blobs have 0.03, and
match others somewhere; the lowest of 299 photos has 0.16."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rectangle:
    """A part of a picture, as fractions of its sides."""

    left: float
    top: float
    right: float
    bottom: float

    def of(self, picture: Image.Image) -> tuple[float, float, float, float]:
        """Returns it in pixels of a picture."""
        width, height = picture.size
        return self.left * width, self.top * height, self.right * width, self.bottom * height


class View:
    """What a photo's overlap with others is recognised by.

    Args:
        photo: The photo.
    """

    def __init__(self, photo: Image.Image) -> None:
        small = photo.convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        self.grey = small.convert("L")
        pixels = np.asarray(small, np.int64) * _COLOURS // 256
        codes = pixels @ np.array([_COLOURS**2, _COLOURS, 1])
        self.colours = np.bincount(codes.ravel(), minlength=_COLOURS**3) / codes.size
        size = _sides(self.grey, _FINE)
        fine, coarse = (
            _edges(self.grey.resize(size, Image.Resampling.BICUBIC), *blurs).var()
            for blurs in (_BLURS, (2.5, 8))
        )
        self.has_detail = float(fine) >= _DETAIL * float(coarse)

    @cached_property
    def scaled(self) -> tuple[_Edges, ...]:
        """Its edges at each scale, the largest first."""
        sizes = [_sides(self.grey, _COARSE * scale) for scale in _SCALES]
        return tuple(_Edges(_edges(self.grey.resize(size, _FILTER), 0.7, 4)) for size in sizes)


_FILTER = Image.Resampling.BOX


def _sides(picture: Image.Image, longer: float) -> tuple[int, int]:
    """Returns the size of a picture that is reduced to a longer side."""
    unit = longer / max(picture.size)
    return max(4, round(picture.width * unit)), max(4, round(picture.height * unit))


class _Edges:
    """The edges of a picture, with sums that make the correlation of any part of it quick."""

    def __init__(self, edges: Floats) -> None:
        self.edges = edges
        self.sums, self.squares = _sums(edges), _sums(edges**2)
        self._spectra: dict[tuple[int, int], npt.NDArray[np.complex64]] = {}

    def spectrum(self, size: tuple[int, int]) -> npt.NDArray[np.complex64]:
        """Returns its Fourier transform, padded to a size; computed once for each."""
        if size not in self._spectra:
            from scipy import fft

            self._spectra[size] = fft.rfft2(self.edges, size)
        return self._spectra[size]


def overlap(one: View, other: View) -> bool:
    """Whether two photos show the same over most of their area, one perhaps closer up."""
    alike = float(np.minimum(one.colours, other.colours).sum()) >= _ALIKE
    if not (alike and one.has_detail and other.has_detail):
        return False
    return _reduced_fits(one, other) or _reduced_fits(other, one)


def _reduced_fits(one: View, other: View) -> bool:
    """Whether a photo, as it is or reduced, matches a part of another, or the reverse."""
    below = other.scaled[0]
    best, parts = 0.0, None
    for edges in one.scaled:
        value, found = _best_shift(edges, below, _LEAST_AREA, _LEAST_SIDE)
        if value > best:
            best, parts = value, found
    if best < _CANDIDATE or parts is None:
        return False
    return _common_part(one.grey, other.grey, *parts) >= SAME


def _common_part(
    one: Image.Image, other: Image.Image, part: Rectangle, other_part: Rectangle
) -> float:
    """Returns the best correlation of two parts of photos that seem to show the same."""
    left, top, right, bottom = other_part.of(other)
    unit = _FINE / max(right - left, bottom - top)
    width, height = (right - left) * unit, (bottom - top) * unit
    below = _Edges(_cut(other, other_part, width, height))
    return max(
        _best_shift(_Edges(_cut(one, part, width * by, height * by)), below, 0.0, 0.75)[0]
        for by in _NUDGES
    )


def _cut(picture: Image.Image, part: Rectangle, width: float, height: float) -> Floats:
    size = max(8, round(width)), max(8, round(height))
    return _edges(picture.resize(size, Image.Resampling.BICUBIC, box=part.of(picture)), *_BLURS)


def _edges(picture: Image.Image, fine: float, coarse: float) -> Floats:
    """Returns the difference of two blurs: edges without brightness and without pixel noise."""
    from scipy import ndimage  # late: a worker has no scipy

    pixels = np.asarray(picture, np.float32)
    difference: Floats = ndimage.gaussian_filter(pixels, fine) - ndimage.gaussian_filter(
        pixels, coarse
    )
    return difference


def _best_shift(
    above: _Edges, below: _Edges, least_area: float, least_side: float
) -> tuple[float, tuple[Rectangle, Rectangle] | None]:
    """Lays a picture over another at every shift.

    Args:
        above: The edges of the picture that is shifted.
        below: Those of the other one.
        least_area: Least common part of the smaller one's area.
        least_side: Least common part of the smaller one's sides.

    Returns:
        The best correlation of the common part, and that part in both pictures.
    """
    (height, width), (rows, columns) = above.edges.shape, below.edges.shape
    products = _correlate(above, below)
    down, top, bottom = _shifts(height, rows, least_side)
    right, left, end = _shifts(width, columns, least_side)
    count = np.outer(bottom - top, end - left).astype(np.float64)
    place = (top[:, None], bottom[:, None], left[None], end[None])
    own = (
        (top - down)[:, None], (bottom - down)[:, None], (left - right)[None], (end - right)[None],
    )  # fmt: skip
    sums = _within(above.sums, own), _within(below.sums, place)
    variances = [
        _within(edges.squares, where) / count - (total / count) ** 2
        for edges, where, total in ((above, own, sums[0]), (below, place, sums[1]))
    ]
    common = products[np.ix_(down % len(products), right % products.shape[1])]
    covariance = common / count - sums[0] * sums[1] / count**2
    value = covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1e-9))
    least = least_area * min(height * width, rows * columns)
    value[(count < least) | (np.minimum(*variances) < _PLAIN)] = 0
    if not value.size or (best := float(value.max())) <= 0:
        return 0.0, None
    y, x = np.unravel_index(int(value.argmax()), value.shape)
    y0, y1, x0, x1 = top[y], bottom[y], left[x], end[x]
    of_above = Rectangle(
        (x0 - right[x]) / width, (y0 - down[y]) / height, (x1 - right[x]) / width,
        (y1 - down[y]) / height,
    )  # fmt: skip
    return best, (of_above, Rectangle(x0 / columns, y0 / rows, x1 / columns, y1 / rows))


def _correlate(above: _Edges, below: _Edges) -> Floats:
    """Returns the sum of products at every shift; negative shifts count from the end."""
    from scipy import fft

    longest = max(*above.edges.shape, *below.edges.shape)
    side = 2 * (_COARSE if longest <= _COARSE else longest)  # one size, and spectrum, for most
    size = (side, side)
    products: Floats = fft.irfft2(below.spectrum(size) * np.conj(above.spectrum(size)), size)
    return products


def _shifts(
    length: int, other: int, least: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns shifts along a side, with start and end of the common part of the other one."""
    shift = np.arange(1 - length, other)
    start, end = np.maximum(shift, 0), np.minimum(shift + length, other)
    enough = end - start >= least * min(length, other)
    return shift[enough], start[enough], end[enough]


def _sums(values: Floats) -> npt.NDArray[np.float64]:
    """Returns the sum over all rows above and columns before each place."""
    return np.pad(values.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _within(
    sums: npt.NDArray[np.float64], place: tuple[npt.NDArray[np.int64], ...]
) -> npt.NDArray[np.float64]:
    """Returns the sum over rectangles: first row, row after the last, and the same of columns."""
    top, bottom, left, right = place
    within: npt.NDArray[np.float64] = (
        sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    )
    return within
