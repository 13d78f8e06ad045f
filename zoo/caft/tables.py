"""Writes a feature cache as a table for other programs: Parquet, Arrow, CSV, ``.npz``, webdataset.

A row of the table is a row of the cache, with the sample's name and the name of its class. Rows are
written some at a time, so memory does not grow with the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.caft.archives import Step, write_npz, write_webdataset
from zoo.caft.cache import FeatureCache
from zoo.caft.files import NO_LABEL
from zoo.schema.closed import complete
from zoo.util.errors import CacheError, MissingPackageError, UsageError
from zoo.util.files import whole
from zoo.util.strenum import StrEnum

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 32 << 20
"""Bytes of features per batch of rows."""

CARD = b"caft-zoo"
"""Key of the cache's card, as JSON, in the metadata of Arrow and Parquet files."""


def arrow_batches(cache: FeatureCache) -> pa.RecordBatchReader:
    """Returns the rows of a cache as a stream of Arrow record batches.

    The columns: ``name`` (string), ``view`` (int32; 0 is the plain view), ``label`` (string with a
    dictionary; null without a label), ``features`` (a list of fixed size, in the cache's data
    type). The features are not copied: they are read from the disk when they are used.

    Raises:
        MissingPackageError: pyarrow is not installed.
    """
    pa = _pyarrow()
    schema = _schema(cache)
    return pa.RecordBatchReader.from_batches(schema, _batches(cache, schema))


class TableFormat(StrEnum):
    """The formats of tables."""

    PARQUET = "parquet"
    ARROW = "arrow"
    CSV = "csv"
    NPZ = "npz"
    WEBDATASET = "webdataset"


def format_of(path: Path) -> TableFormat:
    """Returns the format that a file's suffix stands for.

    Raises:
        UsageError: None has this suffix.
    """
    for kind, facts in FORMATS.items():
        if facts.suffix == path.suffix.lower():
            return kind
    raise UsageError(
        f"{path}: no format has the suffix '{path.suffix}'",
        hint=f"formats: {', '.join(facts.suffix for facts in FORMATS.values())}",
    )


def check_packages(kind: TableFormat) -> None:
    """Checks that what writes a format is installed.

    Raises:
        MissingPackageError: It is not.
    """
    if FORMATS[kind].arrow:
        _pyarrow()


def write_table(cache: FeatureCache, path: Path, step: Step = lambda rows: None) -> None:
    """Writes the rows of a cache to a file, in the format of its suffix, all or nothing.

    ``.parquet``, ``.arrow`` (IPC) and ``.csv`` have the columns of :func:`arrow_batches`, but a
    CSV file has a column for each feature, ``f0``, ``f1`` ...; ``.npz`` has the arrays
    ``features``, ``labels`` (-1 without a label), ``views``, ``names`` and ``label_names``; and
    ``.tar`` is described at :func:`zoo.caft.archives.write_webdataset`.

    Args:
        cache: The cache.
        path: The file.
        step: Called with a number of rows that have been written.

    Raises:
        UsageError: The suffix is none of these.
        MissingPackageError: pyarrow is not installed; ``.npz`` and ``.tar`` do not need it.
        CacheError: The cache is damaged, or the file can't be written.
    """
    kind = format_of(path)
    check_packages(kind)
    cache.check()
    try:
        with whole(path) as part:
            FORMATS[kind].write(cache, part, step)
    except OSError as error:
        raise CacheError(
            f"can't write {path}: {error.strerror or error}", hint="make room, or choose another -o"
        ) from error


def _write_parquet(cache: FeatureCache, path: Path, step: Step) -> None:
    _pyarrow()
    from pyarrow import parquet

    # Floats hardly compress, and dictionaries of them only take time.
    columns = {"compression": "none", "use_dictionary": ["name", "label"]}
    with (
        arrow_batches(cache) as batches,
        parquet.ParquetWriter(path, batches.schema, **columns) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            step(len(batch))


def _write_arrow(cache: FeatureCache, path: Path, step: Step) -> None:
    pa = _pyarrow()
    with (
        arrow_batches(cache) as batches,
        pa.OSFile(str(path), "wb") as file,
        pa.ipc.new_file(file, batches.schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            step(len(batch))


def _write_csv(cache: FeatureCache, path: Path, step: Step) -> None:
    pa = _pyarrow()
    from pyarrow import csv

    width = cache.identity.feature_dim
    names = ["name", "view", "label", *(f"f{number}" for number in range(width))]
    types = [pa.string(), pa.int32(), pa.string(), *[pa.float32()] * width]
    with csv.CSVWriter(path, pa.schema(zip(names, types, strict=True))) as writer:
        for batch in arrow_batches(cache):
            flat = batch["features"].flatten().to_numpy(zero_copy_only=False)
            columns = np.asarray(flat, np.float32).reshape(-1, width).T
            writer.write_batch(
                pa.record_batch(
                    [
                        batch["name"],
                        batch["view"],
                        batch["label"].cast(pa.string()),
                        *(pa.array(np.ascontiguousarray(column)) for column in columns),
                    ],
                    names=names,
                )
            )
            step(len(batch))


@dataclass(frozen=True, kw_only=True)
class FormatFacts:
    """Facts about a format.

    Attributes:
        suffix: Suffix of its files.
        write: Writes a cache to a file.
        arrow: Whether pyarrow writes it.
    """

    suffix: str
    write: Callable[[FeatureCache, Path, Step], None]
    arrow: bool


FORMATS = complete(
    TableFormat,
    {
        TableFormat.PARQUET: FormatFacts(suffix=".parquet", write=_write_parquet, arrow=True),
        TableFormat.ARROW: FormatFacts(suffix=".arrow", write=_write_arrow, arrow=True),
        TableFormat.CSV: FormatFacts(suffix=".csv", write=_write_csv, arrow=True),
        TableFormat.NPZ: FormatFacts(suffix=".npz", write=write_npz, arrow=False),
        TableFormat.WEBDATASET: FormatFacts(suffix=".tar", write=write_webdataset, arrow=False),
    },
)


def _schema(cache: FeatureCache) -> pa.Schema:
    pa = _pyarrow()
    features = pa.list_(pa.from_numpy_dtype(cache.features.dtype), cache.identity.feature_dim)
    return pa.schema(
        [
            pa.field("name", pa.string(), nullable=False),
            pa.field("view", pa.int32(), nullable=False),
            pa.field("label", pa.dictionary(pa.int32(), pa.string())),
            pa.field("features", features, nullable=False),
        ],
        metadata={CARD: cache.card.model_dump_json().encode()},
    )


def _batches(cache: FeatureCache, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    pa = _pyarrow()
    classes = pa.array(cache.label_names, pa.string())
    views, width = cache.views, cache.identity.feature_dim
    step = max(1, _AT_ONCE // (views * width * cache.features.itemsize))  # samples
    names = cache.names()
    for start in range(0, len(cache.labels), step):
        labels = np.repeat(cache.labels[start : start + step], views)
        indices = pa.array(labels.astype(np.int32), mask=labels == NO_LABEL)
        rows = cache.features[start * views : start * views + len(labels)]
        columns = [
            pa.array([name for name in islice(names, step) for _ in range(views)], pa.string()),
            pa.array(np.tile(np.arange(views, dtype=np.int32), len(labels) // views)),
            pa.DictionaryArray.from_arrays(indices, classes),
            pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), width),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingPackageError(
            "pyarrow is not installed", hint="pip install 'caft-zoo[arrow]', or write a .npz"
        ) from error
    return pa
