"""A signed repository with the engine of ``data/toy.onnx``, which other processes can use."""

from __future__ import annotations

from pathlib import Path

from support.caft import PREPROCESS, TOY
from support.records import build_inputs
from support.signed_repository import Signed
from zoo.schema.keys import BuildInputs
from zoo.schema.records import BuildRecord
from zoo.util.digest import sha256_json


class ToyRepository(Signed):
    """A repository whose only model, ``toy``, takes 32 pixels and has 8 features."""

    def build_inputs(self, model: str, content: bytes) -> BuildInputs:
        """What the engine is made from."""
        onnx = sha256_json(content.hex())
        return build_inputs(model=model, onnx=onnx, preprocess=PREPROCESS)


def toy_repository(folder: Path) -> tuple[ToyRepository, BuildRecord]:
    """Returns a new repository, and the record of its engine."""
    made = ToyRepository(folder)
    record = made.build("toy", TOY.read_bytes())
    stated = {**PREPROCESS.model_dump(mode="json"), "size_of": "test", "size_reason": "none"}
    made.propose(record, preprocess=stated)
    assert not made.publish().refused
    return made, record
