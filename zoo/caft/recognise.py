"""Decides by content which samples of a data set are in a cache and which must be extracted.

A row of a cache belongs to the content of an image. A sample whose content is in the cache keeps
its row, whatever its name, label or position in the data set is now. Samples are read and hashed,
unless the stamp of their file is known (:mod:`zoo.caft.stamps`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from zoo.caft.arrange import Draft
from zoo.caft.content import digest_of
from zoo.caft.file_read import FileRead
from zoo.caft.files import HASHES, LOG, Log, LogLine, in_utf8, key_of, whole_lines
from zoo.caft.growing import mapped
from zoo.caft.labels import LabelError, own_class
from zoo.caft.lookup import Keys, Rows
from zoo.caft.sample import Item, Sample, Source
from zoo.caft.stamps import Stamps
from zoo.util.errors import CacheError, DatasetError

_AT_ONCE = 16  # samples per task of a thread


@dataclass(kw_only=True)
class Changes:
    """The differences between a data set and its cache.

    Attributes:
        kept: Samples whose content was in the cache.
        relabelled: Samples with the same name and content but another label.
        replaced: Samples with the same name whose content was not in the cache.
        renamed: Samples with another name whose content was in the cache.
        gone: Names that are no longer in the data set.
        reordered: Whether samples are in another order.
    """

    kept: int = 0
    relabelled: int = 0
    replaced: int = 0
    renamed: int = 0
    gone: int = 0
    reordered: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """A sample whose content was looked up.

    Attributes:
        sample: The sample; one that can be read only once carries what was read.
        label: Name of its class, None if it has none.
        digest: SHA-256 of its content, None if it was not looked up or can't be read.
    """

    sample: Sample
    label: str | None
    digest: str | None = None


class Recogniser:
    """Compares a data set with a cache.

    Args:
        folder: The cache's folder.
        log: The cache's log before this pass.
        stamps: Stamps of the data set's files.
        writable: Whether the cache may be written.
        workers: Number of threads that read samples.

    Attributes:
        changes: The differences so far.
        draft: The new log; None while lines are only appended to the present one.
    """

    def __init__(
        self, folder: Path, log: Log, stamps: Stamps, *, writable: bool = True, workers: int = 1
    ) -> None:
        self.changes = Changes()
        self.draft: Draft | None = None
        self._folder, self._log, self._stamps = folder, log, stamps
        self._writable, self._workers = writable, workers
        self._rows = Rows(mapped(folder / HASHES, np.uint8, (32,), log.samples))
        self._keys = Keys(log.keys)
        self._last = -1
        self._old = _lines(folder, len(log.keys))
        self._same, self._new = 0, 0

    @property
    def rows(self) -> Rows:
        """The rows that the cache had before this pass."""
        return self._rows

    @property
    def folder(self) -> Path:
        """The cache's folder."""
        return self._folder

    def placed(self, count: int) -> list[tuple[int, str]]:
        """Returns place and digest of about a number of samples, spread over the cache."""
        places = np.flatnonzero(np.frombuffer(self._log.rows, np.int64) >= 0)
        chosen = places[:: max(1, len(places) // count)]
        return [(int(place), self._rows.digest(self._log.rows[place])) for place in chosen]

    def digests(self, samples: Iterable[Sample]) -> Iterator[str]:
        """Yields the digests of samples in order, but not of those that can't be read."""
        for known in self._looked_up(samples):
            if known.digest is not None:
                yield known.digest

    @property
    def before(self) -> int:
        """Number of names in the cache before this pass."""
        return self._keys.distinct

    def new_samples(self, source: Source) -> Generator[Sample, None, None]:
        """Yields the samples whose features must be extracted.

        Raises:
            CacheError: The cache is read-only and differs from the data set.
        """
        if not self._log.keys:  # a new cache
            for sample in source:
                self._require_writable("lacks images")
                yield sample
            return
        for known in self._looked_up(source):
            key = key_of(known.sample)
            meant = partial(_is_line_of, self._log, self._rows, known.digest)
            line = self._keys.find(key, meant)
            row = self._row(line, known.digest)
            self._count(line, row, known.label)
            if row is None:
                if not self._writable and self._was_skipped(key):
                    yield known.sample  # the writer refuses it if it is usable now
                    continue
                self._require_writable("lacks images")
                if self.draft is None and self._same < len(self._log.keys):
                    self._diverge()
                if self.draft is not None:
                    self.draft.expect()
                self._new += 1
                yield known.sample
            else:
                self._keep(row, key, known)
        if self.draft is None and self._same < len(self._log.keys):
            self._diverge()
        self.changes.gone = self._keys.distinct - self._keys.found

    def _looked_up(self, source: Iterable[Sample]) -> Iterator[Known]:
        """Yields samples in order, with their digests unless the cache is empty."""
        if not self._log.samples:
            for sample in source:
                yield Known(sample=sample, label=sample.label)
            return
        waiting: deque[Future[list[Known]]] = deque()
        with ThreadPoolExecutor(self._workers, "recognise") as pool:
            try:
                for chunk in _chunks(source):
                    waiting.append(pool.submit(self._look_up, chunk))
                    if len(waiting) > 2 * self._workers:
                        yield from waiting.popleft().result()
            except DatasetError:  # process the samples before the failure first
                while waiting:
                    yield from waiting.popleft().result()
                raise
            while waiting:
                yield from waiting.popleft().result()

    def _look_up(self, samples: list[Sample]) -> list[Known]:
        return [self._identify(sample) for sample in samples]

    def _identify(self, sample: Sample) -> Known:
        read = sample.read
        if isinstance(read, FileRead):
            stamp = read.now()
            digest = self._stamps.digest(stamp) if stamp is not None else None
            if digest is not None:
                return Known(sample=sample, label=sample.label, digest=digest)
        try:
            loaded = read()
            image, label = loaded, sample.label
            if isinstance(loaded, Item):
                image, label = loaded.image, own_class(loaded.label, sample.name)
            digest = digest_of(image)
        except LabelError:
            raise
        except Exception:  # the decoder reads it again and reports why
            return Known(sample=sample, label=sample.label)
        if isinstance(read, FileRead):
            self._stamps.add(read.stamp, digest)
        if not sample.rereadable:
            sample = replace(sample, read=lambda: loaded)
        return Known(sample=sample, label=label, digest=digest)

    def _row(self, line: int | None, digest: str | None) -> int | None:
        """Returns the row of a digest: the given line's if it matches, else the first."""
        if digest is None:
            return None
        if line is not None and _is_line_of(self._log, self._rows, digest, line):
            return self._log.rows[line]
        return self._rows.find(digest)

    def _count(self, line: int | None, row: int | None, label: str | None) -> None:
        changes = self.changes
        changes.kept += row is not None
        if line is None:
            changes.renamed += row is not None
            return
        had = self._log.rows[line]
        if had < 0:
            return  # it was skipped before
        if row != had:
            changes.replaced += row is None
            changes.renamed += row is not None
            return
        number = self._log.classes.get(label, -2) if label is not None else -1
        changes.relabelled += number != self._log.labels[line]
        changes.reordered |= line < self._last
        self._last = max(self._last, line)

    def _keep(self, row: int, key: str, known: Known) -> None:
        name = in_utf8(known.sample.name)
        if self.draft is None:
            line = next(self._old, None)
            if (
                line is not None
                and line["key"] == key
                and line["name"] == name
                and line.get("label") == known.label
                and self._log.rows[self._same] >= 0
                and line.get("sha256") == known.digest
            ):
                self._same += 1
                return
            self._diverge()
        assert self.draft is not None
        self.draft.keep(row, key, name, known.label)

    def _was_skipped(self, key: str) -> bool:
        """Whether the next line of the log is of a skipped sample with this key."""
        line = next(self._old, None) if self.draft is None else None
        if line is None or line["key"] != key or "error" not in line:
            return False
        self._same += 1
        return True

    def _diverge(self) -> None:
        self._require_writable("differs from the data set")
        self.draft = Draft(self._folder, self._same)
        for _ in range(self._new):
            self.draft.expect()

    def _require_writable(self, why: str) -> None:
        if not self._writable:
            raise CacheError(
                f"{self._folder} {why}, and you may not write to it",
                hint="copy the folder to one of your own and name it with -o",
            )


def _is_line_of(log: Log, rows: Rows, digest: str | None, line: int) -> bool:
    """Whether a line of a log is of an image with this digest, or of one that was skipped."""
    row = log.rows[line]
    if digest is None:
        return row < 0
    return row >= 0 and rows.is_of(row, bytes.fromhex(digest))


def _lines(folder: Path, count: int) -> Iterator[LogLine]:
    """Yields the lines that a cache's log had before this pass."""
    if count:
        for line, _ in islice(whole_lines(folder / LOG), count):
            yield line


def _chunks(source: Iterable[Sample]) -> Iterator[list[Sample]]:
    """Yields samples a few at a time, including those read before a failure."""
    samples = iter(source)
    while True:
        chunk: list[Sample] = []
        try:
            chunk.extend(islice(samples, _AT_ONCE))
        except DatasetError:
            yield chunk
            raise
        if not chunk:
            return
        yield chunk
