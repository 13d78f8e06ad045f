"""The exports of a model: stored ones, and those that a run makes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from builders.executors import Outcome
from builders.jobs.messages import ExportJob, ExportOutput, Job
from builders.planning.request import Request
from builders.publish import records
from builders.recipe import export_form
from builders.recipe.export_form import Form
from zoo.repository.repository import Repository
from zoo.schema.keys import WeightsIdentity
from zoo.schema.manifest import Manifest
from zoo.schema.precisions import Precision
from zoo.schema.records import ExportRecord, FailureRecord
from zoo.util.errors import RepositoryError

Export = ExportRecord | FailureRecord
"""An export, or the record of its failure."""


class Exports:
    """The exports of a model; missing ones are made on demand.

    Args:
        repository: Where they are stored.
        manifest: The model.
        identity: Its weights.
        request: The request.
        run: Runs a job.
    """

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        identity: WeightsIdentity,
        request: Request,
        run: Callable[[Job], AbstractContextManager[Outcome]],
    ) -> None:
        self._repository = repository
        self._manifest = manifest
        self._identity = identity
        self._request = request
        self._run = run
        self._found: dict[Form, Export] = {}
        self._turn = threading.Lock()

    def make(self, forms: Iterable[Form]) -> None:
        """Makes the missing exports among some forms, one job per dialect."""
        needed: dict[str, list[Form]] = {}
        for form in forms:
            # Other precisions are derived from fp32, which comes first.
            fp32 = Form(dialect=form.dialect, precision=Precision.FP32)
            of_dialect = needed.setdefault(form.dialect, [fp32])
            if form not in of_dialect:
                of_dialect.append(form)
        for of_dialect in needed.values():
            self._make(of_dialect)

    def __getitem__(self, form: Form) -> Export:
        with self._turn:  # engines built at the same time may need the same export
            if form not in self._found:
                self.make([form])
            return self._found[form]

    def _make(self, forms: list[Form]) -> None:
        """Makes the missing exports of one dialect; the first form is fp32."""
        images = self._request.calibration
        asked = {
            form: export_form.export_inputs(self._manifest, self._identity, form, images.name)
            for form in forms
        }
        for form, export in asked.items():
            if (record := self._read(export.key)) is not None:
                self._found[form] = record
        missing = [form for form in forms if form not in self._found]
        if not missing:
            return
        seeded, model = self._identity.seeded, self._manifest.id
        state = self._repository.state(model, self._identity.digest) if seeded else None
        fp32 = self._found.get(forms[0])
        assert not isinstance(fp32, FailureRecord)
        job = ExportJob(
            manifest=self._manifest,
            manifest_dir=str(self._request.manifest_dir.resolve()),
            weights=self._identity,
            inputs={form.name: asked[form] for form in missing},
            calibration=images,
            fp32=fp32,
            state=state.state if state else None,
            store=self._repository.store.url,
        )
        with self._run(job) as outcome:
            assert isinstance(outcome.result, ExportOutput)
            records.publish_export(self._repository, job, outcome.result, outcome.folder)
        for form in missing:
            record = self._read(asked[form].key)
            if record is None:  # the record of an export that was damaged, made anew otherwise
                raise RepositoryError(
                    f"{self._repository.store.url}: export {asked[form].key} names files that are "
                    "missing or damaged, and a new export does not give the same files",
                    hint=".venv/bin/zoo-farm check --repair removes the record so that it is made "
                    "again",
                )
            self._found[form] = record

    def _read(self, key: str) -> Export | None:
        """Returns a complete export or the record of its failure; None if it was not tried."""
        repository, model = self._repository, self._manifest.id
        record = repository.export(model, key)
        if record is None:
            return repository.failed_export(model, key)
        return record if all(map(repository.blobs.seems_whole, record.blobs)) else None
