"""Trains a head on cached features, with torch (AdamW or L-BFGS) and early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.caft.cache import FeatureCache
from zoo.caft.head import Head, HeadCard, Training
from zoo.caft.report import Epoch, Report, judge
from zoo.caft.rows import Rows, standardise
from zoo.caft.settings import Fitted, Settings
from zoo.caft.split import Split, split_samples
from zoo.util.errors import HeadError, MissingPackageError

if TYPE_CHECKING:
    import torch

_SMALL = 1 << 24  # multiplications per step below which more threads are slower


def train_head(
    cache: FeatureCache,
    settings: Settings | None = None,
    *,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Head, Report]:
    """Trains a head and evaluates it on held-out samples.

    Args:
        cache: Features with labels.
        settings: Settings of the training; the defaults if None.
        on_epoch: Called with each epoch's losses and accuracy.

    Returns:
        The head, and its report on the held-out samples.

    Raises:
        CacheError: Fewer than two classes have a label, or the cache is damaged.
        UsageError: The fractions leave no training samples.
        HeadError: Training diverged: the loss is not a finite number.
        MissingPackageError: torch is not installed, or scikit-learn for the solver ``sklearn``.
    """
    settings = settings or Settings()
    split = split_samples(cache, val=settings.val, test=settings.test, seed=settings.seed)
    if settings.solver == "sklearn":
        split = split.without_val()  # it has no early stopping
    mean, scale = standardise(cache, split.train)
    cache.check()
    if settings.solver == "sklearn":
        from zoo.caft.fit_sklearn import fit_sklearn

        fitted = fit_sklearn(cache, split, mean, scale, settings)
    else:
        fitted = _fit(cache, split, mean, scale, settings, on_epoch)
    trained = Training(
        solver=settings.solver,
        seed=settings.seed,
        rows=len(split.train) * cache.views,
        epochs=len(fitted.curve),
    )
    card = HeadCard(
        identity=cache.identity, kind=settings.kind, labels=cache.label_names, trained=trained
    )
    head = Head(card=card, mean=mean, scale=scale, layers=fitted.layers)
    return head, judge(head, cache, split, fitted.curve, fitted.seconds)


def _fit(
    cache: FeatureCache,
    split: Split,
    mean: Any,
    scale: Any,
    settings: Settings,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    torch = _torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = Rows(cache, split.train, mean, scale, device)
    val = Rows(cache, split.val, mean, scale, device) if len(split.val) else train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        module = _module(cache, settings).to(device)
        rows = min(len(train), settings.batch if settings.solver == "adamw" else len(train))
        step_size = rows * sum(weight.numel() for weight in module.parameters())
        step = {"adamw": _adamw, "lbfgs": _lbfgs}[settings.solver](module, train, settings)
        best, best_loss, since = _copy(module), float("inf"), 0
        curve: list[Epoch] = []
        started = time.perf_counter()
        for number in range(1, settings.epochs + 1):
            with _threads(1 if step_size < _SMALL else None):
                loss = step()
                val_loss, right = _evaluate(module, val)
            epoch = Epoch(number=number, train_loss=loss, val_loss=val_loss, val_accuracy=right)
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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets torch's number of threads temporarily; None leaves it unchanged."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _module(cache: FeatureCache, settings: Settings) -> torch.nn.Sequential:
    from torch import nn

    width, classes = cache.identity.feature_dim, len(cache.label_names)
    if settings.kind == "linear":
        return nn.Sequential(nn.Linear(width, classes))
    hidden = nn.Linear(width, settings.hidden)
    return nn.Sequential(
        hidden, nn.ReLU(), nn.Dropout(settings.dropout), nn.Linear(settings.hidden, classes)
    )


def _adamw(module: Any, rows: Rows, settings: Settings) -> Callable[[], float]:
    """Returns a function that runs an epoch of AdamW and returns its mean loss."""
    import torch

    optimiser = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def epoch() -> float:
        module.train()
        total = 0.0
        order = torch.randperm(len(rows)).to(rows.labels.device)
        for numbers in torch.split(order, settings.batch):
            features, labels = rows.take(numbers)
            loss = torch.nn.functional.cross_entropy(module(features), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += float(loss.detach()) * len(numbers)
        return total / len(rows)

    return epoch


def _lbfgs(module: Any, rows: Rows, settings: Settings) -> Callable[[], float]:
    """Returns a function that runs 20 iterations of L-BFGS and returns the mean loss."""
    import torch

    optimiser = torch.optim.LBFGS(
        module.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe"
    )
    weights = [weight for name, weight in module.named_parameters() if name.endswith("weight")]

    def loss_and_gradient() -> torch.Tensor:
        optimiser.zero_grad()
        penalty = settings.weight_decay / 2 * torch.stack([w.square().sum() for w in weights]).sum()
        penalty = penalty / len(rows)
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.detach()
        for features, labels in rows.chunks():
            loss = torch.nn.functional.cross_entropy(module(features), labels, reduction="sum")
            (loss / len(rows)).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach() / len(rows)
        return total

    def epoch() -> float:
        module.eval()  # dropout would change the function during the line search
        return float(optimiser.step(loss_and_gradient))  # type: ignore[no-untyped-call]

    return epoch


def _evaluate(module: Any, rows: Rows) -> tuple[float, float]:
    """Returns the mean loss and the accuracy over all rows."""
    import torch

    module.eval()
    loss, right = 0.0, 0
    with torch.inference_mode():
        for features, labels in rows.chunks():
            logits = module(features)
            loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
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
