"""Exports: the ONNX files of one model, those that are there and those that a run makes."""

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

Export = ExportRecord | FailureRecord
"""An ONNX, or why there is none."""


class Exports:
    """The exports of a model; those that are missing are made when they are asked for.

    Args:
        repository: Where they lie.
        manifest: The model.
        identity: Its weights.
        request: What a run was asked for.
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
        """Makes what is missing of some forms, a job for each dialect."""
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
        with self._turn:  # engines of a model are built at once, and may want the same
            if form not in self._found:
                self.make([form])
            return self._found[form]

    def _make(self, forms: list[Form]) -> None:
        """Makes what is missing of the forms of one dialect, fp32 the first of them."""
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
            assert record is not None
            self._found[form] = record

    def _read(self, key: str) -> Export | None:
        """Returns an export that is whole, or why there is none; None where it was not tried."""
        repository, model = self._repository, self._manifest.id
        record = repository.export(model, key)
        if record is None:
            return repository.failed_export(model, key)
        whole = repository.blobs.has(record.onnx) and repository.blobs.has(record.golden)
        return record if whole else None
