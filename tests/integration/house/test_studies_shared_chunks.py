"""Chunks that an engine shares with its ONNX, and the order of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.studies import shared_chunks
from benchmarks.studies.shared_chunks import chunks_of, digests, look, pieces_found, share

RANDOM = np.random.default_rng(1)
DATA = RANDOM.integers(0, 256, 2 << 20, np.uint8).tobytes()


def test_chunks_are_the_data_in_order_and_within_their_limits() -> None:
    for data in (DATA, b"", b"x", bytes(300_000)):
        chunks = list(chunks_of(data))
        assert b"".join(chunks) == data
        assert all(len(chunk) <= 64 << 10 for chunk in chunks)
        assert all(len(chunk) >= 2 << 10 for chunk in chunks[:-1])
    assert 6_000 < len(DATA) / len(list(chunks_of(DATA))) < 16_000


def test_blocks_do_not_change_the_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(chunks_of(DATA))
    monkeypatch.setattr(shared_chunks, "_BLOCK", 10_007)
    assert list(chunks_of(DATA)) == whole


def test_an_insertion_costs_the_chunks_around_it() -> None:
    changed = b"header" * 9 + DATA[: 1 << 20] + b"between" + DATA[1 << 20 :]
    assert 0.95 < share(digests(changed), digests(DATA)) < 1
    assert share(digests(DATA), digests(DATA)) == 1
    assert share(digests(DATA), digests(DATA[::-1])) == 0


def test_the_order_of_the_weights_is_found() -> None:
    weights = RANDOM.standard_normal((64, 32, 3, 3)).astype(np.float16)
    last = np.ascontiguousarray(weights.transpose(0, 2, 3, 1)).tobytes()
    found = {(one.order, one.piece): one.share for one in pieces_found(b"head" + last, [weights])}
    assert found["channels last", 8192] == found["channels last", 64] == 1
    assert found["as in the ONNX", 64] == found["transposed", 64] == 0
    blocks = weights.reshape(8, 8, 32 * 9).transpose(0, 2, 1)  # 8 filters side by side: 16 bytes
    interleaved = np.ascontiguousarray(blocks).tobytes()
    found = {(one.order, one.piece): one.share for one in pieces_found(interleaved, [weights])}
    assert (found["transposed", 16], found["transposed", 64]) == (1, 0)


def test_an_engine_is_looked_at_beside_its_onnx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = RANDOM.standard_normal((256, 512)).astype(np.float32)
    bias = np.ones(5000, np.float32)  # constant: any piece of it would be found anywhere
    ids = np.arange(5000)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 512])],
        [numpy_helper.from_array(a, n) for a, n in ((weights, "w"), (bias, "b"), (ids, "i"))],
    )  # fmt: skip
    network, engine = tmp_path / "fp32.onnx", tmp_path / "an.engine"
    onnx.save(helper.make_model(graph), network)
    engine.write_bytes(DATA[:5000] + weights.tobytes())
    shared = look(engine, [network], network)
    assert 0.9 < shared.among["fp32.onnx"] < 1
    shares = {one.piece: one.share for one in shared.found if one.order == "as in the ONNX"}
    assert set(shares.values()) == {1.0}
    output = tmp_path / "out.json"
    arguments = ["shared_chunks", str(engine), "--among", str(network), "-o", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    assert shared_chunks.main() == 0
    assert json.loads(output.read_text())["size"] == engine.stat().st_size
    assert "an.engine" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["shared_chunks", str(tmp_path / "absent")])
    assert shared_chunks.main() != 0


def test_without_the_program_there_is_no_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "zeros"
    file.write_bytes(bytes(100_000))
    ratio = shared_chunks.zstd_ratio(file)
    assert ratio is None or ratio < 0.01
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert shared_chunks.zstd_ratio(file) is None


def test_tensors_that_an_order_does_not_change_are_left_out() -> None:
    depthwise = RANDOM.standard_normal((512, 1, 3, 3)).astype(np.float32)
    pointwise = RANDOM.standard_normal((64, 128, 1, 1)).astype(np.float32)
    vector = RANDOM.standard_normal(5000).astype(np.float32)
    orders = {one.order for one in pieces_found(b"", [depthwise, pointwise, vector])}
    assert orders == {"as in the ONNX", "transposed"}
    assert {one.order for one in pieces_found(b"", [vector])} == {"as in the ONNX"}
