"""Checks what workers of a cluster answer: anything may come from there."""

from __future__ import annotations

import numpy as np
from pydantic import ValidationError

from zoo.caft.decode import Decoded
from zoo.caft.file_read import FileRead
from zoo.caft.runs import Result
from zoo.caft.sending import Attempt
from zoo.caft.wire import Answer, InFile, RowOutcome, parts_of
from zoo.util.causes import plain


class Broken(Exception):
    """An answer that is not valid."""


class Faulty(Exception):
    """A worker that could not do its part.

    Args:
        reason: Why.
        hint: What to do about it.
        died: Whether the process of the engine died.
    """

    def __init__(self, reason: str, hint: str | None, *, died: bool) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.died = reason, hint, died


class Differs(Exception):
    """Files that a worker does not see as this machine does.

    Args:
        places: Places of their samples.
        all_of_them: Whether these are all files of the part.
    """

    def __init__(self, places: tuple[int, ...], *, all_of_them: bool) -> None:
        super().__init__(places)
        self.places, self.all_of_them = places, all_of_them


class NotFinite(Exception):
    """An answer with features that are not finite.

    Args:
        result: The result.
    """

    def __init__(self, result: Result) -> None:
        super().__init__()
        self.result = result


def checked(
    data: object, attempt: Attempt, views: int, width: int
) -> tuple[tuple[str, ...], Result]:
    """Returns the decoders and the result of an answer.

    Args:
        data: The answer.
        attempt: What was asked.
        views: Rows of a sample.
        width: Features of a row.

    Raises:
        Broken: It is not valid, or not of this part.
        Faulty: The worker could not do the part.
        Differs: The worker has other files.
        NotFinite: Features are not finite numbers.
    """
    try:
        header, rest = parts_of(data)  # type: ignore[arg-type]  # it checks the type
        answer = Answer.model_validate_json(header)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Broken(plain(f"{'.'.join(map(str, first['loc']))[:80]}: {first['msg']}")) from error
    except ValueError as error:
        raise Broken(str(error)) from error
    _check_done(answer, attempt)
    samples = len(attempt.entries)
    rows = samples * views
    if len(answer.outcomes) != samples or len(rest) != rows * width * 4:
        raise Broken(
            f"{len(answer.outcomes):,} outcomes and {len(rest):,} bytes of features, for {samples} "
            f"images in {views} views of {width} features"
        )
    features = np.frombuffer(rest, np.float32).reshape(rows, width)
    _check_digests(answer, attempt)
    outcomes = tuple(
        _decoded(attempt, place, outcome) for place, outcome in enumerate(answer.outcomes)
    )
    good = np.repeat([outcome.error is None for outcome in outcomes], views)
    decoders = tuple(plain(name) for name in answer.decoders)
    result = Result(outcomes, features)
    if not np.isfinite(features[good]).all():
        raise NotFinite(result)
    return decoders, result


def _check_done(answer: Answer, attempt: Attempt) -> None:
    """Checks that the worker did the part."""
    if answer.fault is not None or answer.died:
        hint = None if answer.hint is None else plain(answer.hint)
        raise Faulty(plain(answer.fault or "it died"), hint, died=answer.died)
    if answer.differ:
        files = {n for n, entry in enumerate(attempt.entries) if isinstance(entry, InFile)}
        if not files.issuperset(answer.differ):
            raise Broken("it reports differences in files that it was not given")
        raise Differs(answer.differ, all_of_them=files == set(answer.differ))


def _check_digests(answer: Answer, attempt: Attempt) -> None:
    """Checks the digests that are known here."""
    for place, outcome in enumerate(answer.outcomes):
        if (outcome.error is None) != bool(outcome.sha256):
            raise Broken("an outcome has neither a digest nor an error, or both")
        sent = not isinstance(attempt.entries[place], InFile)
        expected = attempt.part.packed[place].digest if sent else ""
        if expected and outcome.error is None and outcome.sha256 != expected:
            raise Broken(f"its digest of {attempt.entries[place].name} is not that of the image")
    if attempt.spot is not None:
        place, digest = attempt.spot
        if answer.outcomes[place].error is None and answer.outcomes[place].sha256 != digest:
            files = [n for n, entry in enumerate(attempt.entries) if isinstance(entry, InFile)]
            raise Differs(tuple(files), all_of_them=True)


def _decoded(attempt: Attempt, place: int, outcome: RowOutcome) -> Decoded:
    sample = attempt.part.packed[place].sample
    read = sample.read
    if isinstance(read, FileRead) and isinstance(attempt.entries[place], InFile):
        read.stamp = None  # the next pass reads the file here, and compares the digest
    error = None if outcome.error is None else plain(outcome.error)
    return Decoded(sample=sample, label=sample.label, sha256=outcome.sha256, error=error)
