"""Compares a batch's measured numbers with a tolerance; loads no NumPy."""

from __future__ import annotations

from typing import Any

from zoo.schema.floors import Tolerance


def find_misses(numbers: dict[str, Any], tolerance: Tolerance) -> list[str]:
    """Describes each limit of the tolerance that a batch misses; empty when it meets them all."""
    where = f"batch {numbers['batch']}"
    if not numbers["finite"]:
        if "shape" in numbers:
            return [f"{where}: features of shape {tuple(numbers['shape'])}"]
        return [f"{where}: {numbers['rows_not_finite']} rows hold NaN or infinity"]
    misses = []
    if numbers["worst_cosine"] < tolerance.cosine:
        misses.append(
            f"{where}: row {numbers['worst_row']} has cosine {numbers['worst_cosine']:.6f}, "
            f"at least {tolerance.cosine} is needed"
        )
    for name in ("relative_error", "distance_error"):
        allowed = getattr(tolerance, name)
        if numbers[f"worst_{name}"] > allowed:
            misses.append(
                f"{where}: {name.replace('_', ' ')} {numbers[f'worst_{name}']:.3g}, "
                f"at most {allowed} is allowed"
            )
    if numbers["neighbours"] < tolerance.neighbours:
        misses.append(
            f"{where}: {numbers['neighbours']:.0%} of the nearest photos stay the nearest, at "
            f"least {tolerance.neighbours:.0%} is needed"
        )
    if numbers["lost_rows"]:
        misses.append(f"{where}: {numbers['lost_rows']} rows are nearest to another photo's")
    return misses
