"""Trains a head on cached features, with torch (AdamW or L-BFGS) and early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from zoo.caft.cache import FeatureCache
from zoo.caft.head import Head, HeadCard, Training
from zoo.caft.memory import check_memory
from zoo.caft.report import Epoch, Report, judge
from zoo.caft.report_figure import AnyReport
from zoo.caft.report_values import (
    MultiLabelReport,
    RegressionReport,
    judge_labels,
    judge_regression,
)
from zoo.caft.rows import Rows, standardise
from zoo.caft.settings import Fitted, Settings
from zoo.caft.split import Split, split_samples
from zoo.caft.standardised import Standardised
from zoo.caft.targets import Targets
from zoo.caft.targets_file import targets_of
from zoo.caft.task import TASKS, Task
from zoo.util.errors import HeadError, MissingPackageError, UsageError

if TYPE_CHECKING:
    import torch

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"

_HISTORY = 20  # steps that L-BFGS remembers
_HISTORY_BYTES = 512 << 20  # most memory of them
_SMALL = 1 << 24  # multiplications per step below which more threads are slower
_TRIED, _TRIALS = 256, 8  # rows and repetitions when both are tried
_WORTH = 0.8  # share of the time with one thread below which more are worth it
_DISTURBED = 1.5  # times the fastest epoch from which one thread is used: others need the cores


@overload
def train_head(
    cache: FeatureCache,
    settings: Settings | None = ...,
    *,
    task: Literal["classification"] = ...,
    labels: Any = ...,
    names: Sequence[str] | None = ...,
    on_epoch: Callable[[Epoch], None] = ...,
) -> tuple[Head, Report]: ...


@overload
def train_head(
    cache: FeatureCache,
    settings: Settings | None = ...,
    *,
    task: Literal["regression"],
    labels: Any = ...,
    names: Sequence[str] | None = ...,
    on_epoch: Callable[[Epoch], None] = ...,
) -> tuple[Head, RegressionReport]: ...


@overload
def train_head(
    cache: FeatureCache,
    settings: Settings | None = ...,
    *,
    task: Literal["multi-label"],
    labels: Any = ...,
    names: Sequence[str] | None = ...,
    on_epoch: Callable[[Epoch], None] = ...,
) -> tuple[Head, MultiLabelReport]: ...


@overload
def train_head(
    cache: FeatureCache,
    settings: Settings | None = ...,
    *,
    task: str,
    labels: Any = ...,
    names: Sequence[str] | None = ...,
    on_epoch: Callable[[Epoch], None] = ...,
) -> tuple[Head, AnyReport]: ...


def train_head(
    cache: FeatureCache,
    settings: Settings | None = None,
    *,
    task: str = "classification",
    labels: Any = None,
    names: Sequence[str] | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Head, AnyReport]:
    """Trains a head and evaluates it on held-out samples.

    Args:
        cache: Features, and labels unless ``labels`` has them.
        settings: Settings of the training; the defaults if None.
        task: ``classification``; ``regression``, which minimises the squared error of standardised
            numbers; or ``multi-label``, which minimises binary cross-entropy.
        labels: A CSV file keyed by sample name, or a label for each sample, in the cache's order:
            see :func:`zoo.caft.targets_file.targets_of`. The cache's labels if None.
        names: Names of the columns of ``labels``, if it is an array.
        on_epoch: Called with each epoch's losses and accuracy.

    Returns:
        The head, and its report on the held-out samples.

    Raises:
        CacheError: Fewer than two classes have a label, or the cache is damaged.
        DatasetError: ``labels`` don't fit the cache or the task.
        UsageError: The fractions leave no training samples, or there is no such task.
        HeadError: Training diverged: the loss is not a finite number; or there is not enough
            memory; or the numbers to predict are constant.
        MissingPackageError: torch is not installed, or scikit-learn for the solver ``sklearn``.
    """
    settings = settings or Settings()
    if task not in list(Task):
        raise UsageError(f"unknown task '{task}'", hint=f"tasks: {', '.join(Task)}")
    targets = targets_of(cache, Task(task), labels, names)
    if settings.solver == "sklearn" and targets.task is not Task.CLASSIFICATION:
        raise HeadError(
            f"the solver sklearn supports classification only, not {task}",
            hint="use --solver adamw or lbfgs",
        )
    split = split_samples(
        cache, val=settings.val, test=settings.test, seed=settings.seed, targets=targets
    )
    if settings.solver == "sklearn":
        split = split.without_val()  # it has no early stopping
    mean, scale = standardise(cache, split.train)
    cache.check()
    if settings.solver == "sklearn":
        from zoo.caft.fit_sklearn import fit_sklearn

        fitted = fit_sklearn(cache, targets, split, mean, scale, settings)
    elif targets.task is Task.REGRESSION:
        numbers = Standardised.of(targets, split.train)
        fitted = _fit(cache, numbers.targets, split, mean, scale, settings, on_epoch)
        fitted.layers = numbers.undone(fitted.layers)
    else:
        fitted = _fit(cache, targets, split, mean, scale, settings, on_epoch)
    trained = Training(
        solver=settings.solver,
        seed=settings.seed,
        rows=len(split.train) * cache.views,
        epochs=len(fitted.curve),
    )
    card = HeadCard(
        identity=cache.identity,
        kind=settings.kind,
        labels=targets.names,
        task=targets.task,
        trained=trained,
    )
    head = Head(card=card, mean=mean, scale=scale, layers=fitted.layers)
    if targets.task is Task.REGRESSION:
        return head, judge_regression(head, cache, targets, split, fitted.curve, fitted.seconds)
    if targets.task is Task.MULTI_LABEL:
        return head, judge_labels(head, cache, targets, split, fitted.curve, fitted.seconds)
    return head, judge(head, cache, split, fitted.curve, fitted.seconds, targets)


def _fit(
    cache: FeatureCache,
    targets: Targets,
    split: Split,
    mean: Any,
    scale: Any,
    settings: Settings,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    torch = _torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = _sizes(cache.identity.feature_dim, len(targets.names), settings)
    _check_memory(sizes, settings)
    own = targets.values

    def rows_of(samples: Any) -> Rows:
        return Rows(cache, samples, own[samples], mean, scale, device, width=max(sizes[1:]))

    train = rows_of(split.train)
    val = rows_of(split.val) if len(split.val) else train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = _module(sizes, settings).to(device)
        loss_of = _loss(targets.task)
        rows = min(len(train), settings.batch if settings.solver == "adamw" else train.chunk)
        threads = _threads_for(rows, sizes, device.type)
        solver = {"adamw": _adamw, "lbfgs": _lbfgs}[settings.solver]
        step = solver(module, train, settings, loss_of)
        best, best_loss, since = _copy(module), float("inf"), 0
        curve: list[Epoch] = []
        fastest = float("inf")
        started = time.perf_counter()
        for number in range(1, settings.epochs + 1):
            begun = time.perf_counter()
            with _threads(threads):
                loss = step()
                val_loss, right = _evaluate(module, val, loss_of)
            took = time.perf_counter() - begun
            fastest = min(fastest, took)
            threads = 1 if took > _DISTURBED * fastest else threads
            accuracy = right if targets.task is Task.CLASSIFICATION else None
            epoch = Epoch(number=number, train_loss=loss, val_loss=val_loss, val_accuracy=accuracy)
            curve.append(epoch)
            on_epoch(epoch)
            if not np.isfinite(loss + val_loss):
                raise HeadError(
                    f"the loss is {loss} in epoch {number}",
                    hint=f"use a --learning-rate below {settings.learning_rate}",
                )
            if val_loss < best_loss - 1e-5:
                best, best_loss, since = _copy(module), val_loss, 0
            else:
                since += 1
            if since >= settings.patience:
                break
        seconds = time.perf_counter() - started
    return Fitted(layers=best, curve=curve, seconds=seconds)


def _sizes(width: int, outputs: int, settings: Settings) -> tuple[int, ...]:
    """Returns the widths of a head: of its input, its hidden layer if it has one, its output."""
    return (width, outputs) if settings.kind == "linear" else (width, settings.hidden, outputs)


def _check_memory(sizes: tuple[int, ...], settings: Settings) -> None:
    """Checks that the head, its gradient and the optimiser's copies fit in memory."""
    weights = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    copies = 6 if settings.solver == "adamw" else 8 + 2 * _history(weights)
    hint = "use fewer classes, or features of a narrower model"
    if settings.kind == "mlp":
        hint = f"use a --hidden below {settings.hidden}"
    check_memory(4 * weights * copies, f"training a head with {weights:,} weights", hint)


def _history(weights: int) -> int:
    """Returns how many steps L-BFGS remembers: fewer of large heads, to bound its memory."""
    return max(3, min(_HISTORY, _HISTORY_BYTES // (8 * weights)))


def _threads_for(rows: int, sizes: tuple[int, ...], device: str) -> int:
    """Returns the number of threads that runs a step faster: one, or all of torch's.

    Which it is depends on the load and the limits of the machine as much as on the step: threads
    that have to share a core wait for each other in a loop. So it is tried.

    Args:
        rows: Rows per step.
        sizes: Widths of the head's layers.
        device: Where it is trained.
    """
    import torch

    most = torch.get_num_threads()
    step_size = rows * sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    if device != "cpu" or most == 1 or step_size < _SMALL:
        return 1 if step_size < _SMALL else most
    tried = min(rows, _TRIED)
    pairs = [
        (torch.zeros(tried, inputs), torch.zeros(inputs, outputs))
        for inputs, outputs in pairwise(sizes)
    ]

    def seconds(count: int) -> float:
        with _threads(count):
            started = time.perf_counter()
            for left, right in _TRIALS * pairs:
                torch.relu(left @ right)
            return time.perf_counter() - started

    seconds(most)  # starts the threads
    return most if seconds(most) < _WORTH * seconds(1) else 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Sets torch's number of threads temporarily."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _module(sizes: tuple[int, ...], settings: Settings) -> torch.nn.Sequential:
    from torch import nn

    first, *more = (nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))
    if not more:
        return nn.Sequential(first)
    return nn.Sequential(first, nn.ReLU(), nn.Dropout(settings.dropout), *more)


def _loss(task: Task) -> Loss:
    """Returns a task's loss, summed over rows and outputs."""
    import torch

    function = getattr(torch.nn.functional, TASKS[task].loss)

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if task is not Task.CLASSIFICATION:
            labels = labels.to(outputs.dtype)
        result: torch.Tensor = function(outputs, labels, reduction="sum")
        return result

    return loss


def _adamw(module: Any, rows: Rows, settings: Settings, loss_of: Loss) -> Callable[[], float]:
    """Returns a function that runs an epoch of AdamW and returns its mean loss."""
    import torch

    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def epoch() -> float:
        module.train()
        total = 0.0
        order = torch.randperm(len(rows)).to(rows.labels.device)
        for numbers in torch.split(order, min(settings.batch, len(rows))):
            optimiser.zero_grad(set_to_none=True)
            for part in torch.split(numbers, rows.chunk):  # bounds the memory of many classes
                features, labels = rows.take(part)
                loss = loss_of(module(features), labels)
                (loss / len(numbers)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            optimiser.step()
        return total / len(rows)

    return epoch


def _lbfgs(module: Any, rows: Rows, settings: Settings, loss_of: Loss) -> Callable[[], float]:
    """Returns a function that runs 20 iterations of L-BFGS and returns the mean loss."""
    import torch

    weights = sum(weight.numel() for weight in module.parameters())
    optimiser = torch.optim.LBFGS(
        module.parameters(),
        max_iter=20,
        history_size=_history(weights),
        line_search_fn="strong_wolfe",
    )
    decayed = [weight for name, weight in module.named_parameters() if name.endswith("weight")]

    def loss_and_gradient() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = settings.weight_decay / 2 * torch.stack([w.square().sum() for w in decayed]).sum()
        penalty = penalty / len(rows)
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.detach()
        for features, labels in rows.chunks():
            loss = loss_of(module(features), labels)
            (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach() / len(rows)
        return total

    def epoch() -> float:
        module.eval()  # dropout would change the function during the line search
        return float(optimiser.step(loss_and_gradient))  # type: ignore[no-untyped-call]

    return epoch


def _evaluate(module: Any, rows: Rows, loss_of: Loss) -> tuple[float, float]:
    """Returns the mean loss over all rows, and the accuracy if their labels are classes."""
    import torch

    module.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for features, labels in rows.chunks():
            logits = module(features)
            loss += float(loss_of(logits, labels))
            if labels.ndim == 1:
                right += int((logits.argmax(1) == labels).sum())
    return loss / len(rows), right / len(rows)


def _copy(module: Any) -> tuple[tuple[Any, Any], ...]:
    """Returns the weight and bias of each layer as NumPy arrays."""
    layers = [layer for layer in module if hasattr(layer, "weight")]
    return tuple(
        (layer.weight.detach().cpu().numpy().copy(), layer.bias.detach().cpu().numpy().copy())
        for layer in layers
    )


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            "torch is not installed",
            hint="pip install 'caft-zoo[caft]', or train with --solver sklearn",
        ) from error
    return torch
