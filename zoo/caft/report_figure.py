"""Draws the report of any head: its learning curve, and its results on held-out samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from zoo.caft.report import Report, draw, draw_curve, new_figure, save_figure
from zoo.caft.report_values import MultiLabelReport, RegressionReport

AnyReport: TypeAlias = Report | RegressionReport | MultiLabelReport
_BARS = 30


def draw_report(report: AnyReport, path: Path) -> None:
    """Writes a PNG with the learning curve and the results.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    if isinstance(report, Report):
        draw(report, path)
        return
    figure = new_figure(11, 4.5)
    left, right = figure.subplots(1, 2)
    draw_curve(left, report)
    if isinstance(report, RegressionReport):
        _draw_errors(right, report)
    else:
        _draw_labels(right, report)
    save_figure(figure, path)


def _draw_errors(axes: Any, report: RegressionReport) -> None:
    """Draws each number's RMSE as a fraction of the baseline's."""
    scores = report.scores[:_BARS]
    heights = [score.rmse / score.mean_rmse if score.mean_rmse else np.nan for score in scores]
    axes.barh([score.name[:18] for score in scores][::-1], heights[::-1])
    axes.axvline(1, color="tab:gray")
    axes.set(xlabel="RMSE, as a fraction of always predicting the mean", title="Errors")


def _draw_labels(axes: Any, report: MultiLabelReport) -> None:
    """Draws the average precision of the labels that most held-out samples have."""
    scores = sorted(report.scores, key=lambda score: -score.held_out)[:_BARS]
    shown = [(score.name[:18], score.ap) for score in scores if score.ap is not None]
    axes.barh([name for name, _ in shown][::-1], [ap for _, ap in shown][::-1])
    axes.set(xlabel="average precision", xlim=(0, 1), title="Labels")
