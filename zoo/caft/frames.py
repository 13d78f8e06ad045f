"""A feature cache as a pandas ``DataFrame`` or as torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.caft.memory import check_memory
from zoo.util.errors import MissingPackageError

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.data import TensorDataset

    from zoo.caft.cache import FeatureCache

_NAME_BYTES = 100
"""Of a name and its place in an index, roughly."""


def to_pandas(cache: FeatureCache) -> pd.DataFrame:
    """Returns the rows of a cache; see :meth:`zoo.caft.cache.FeatureCache.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingPackageError("pandas is not installed", hint="pip install pandas") from error
    rows, width = cache.features.shape
    check_memory(rows * _NAME_BYTES, "the names of the rows", "use cache.batches, or a smaller set")
    labels = np.repeat(cache.labels, cache.views)
    frame = pd.DataFrame(
        cache.features, columns=[f"f{number}" for number in range(width)], copy=False
    )
    names = [name for name in cache.names() for _ in range(cache.views)]
    frame.insert(0, "name", names)
    frame.insert(1, "view", np.tile(np.arange(cache.views, dtype=np.int32), len(cache.labels)))
    frame.insert(2, "label", pd.Categorical.from_codes(labels, categories=list(cache.label_names)))
    return frame


def to_torch(cache: FeatureCache, device: Any = None) -> TensorDataset:
    """Returns the rows of a cache; see :meth:`zoo.caft.cache.FeatureCache.to_torch`."""
    try:
        import torch
        from torch.utils.data import TensorDataset
    except ImportError as error:
        raise MissingPackageError(
            "torch is not installed", hint="pip install 'caft-zoo[caft]'"
        ) from error
    check_memory(
        4 * cache.features.size,
        f"{cache.folder} as one tensor",
        "the cache itself is a torch Dataset that reads rows when they are needed",
    )
    features = torch.from_numpy(np.array(cache.features, np.float32))
    labels = torch.from_numpy(np.repeat(cache.labels, cache.views))
    return TensorDataset(features.to(device), labels.to(device))
