"""Which of a sample's files is its image and which its label."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from zoo.caft.labels import LabelChoice
from zoo.caft.tar_fields import Fields, Group, image_of
from zoo.util.errors import DatasetError


def group(fields: Fields, **contents: bytes) -> Group:
    """Returns a sample whose files have these fields; ``__`` stands for a dot."""
    made, packed = Group(), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(f"a.{name.replace('__', '.')}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        for member in tar:
            fields.note(tar, member, made, member.name.removeprefix("a."))
    return made


@pytest.mark.parametrize(
    ("choice", "contents", "label"),
    [
        (None, {"cls": b"cat\n"}, "cat"),
        (None, {"json": b'{"label": "dog"}', "cls": b"cat"}, "cat"),
        (None, {"json": b'{"label": "dog"}'}, "dog"),
        (None, {"txt": b"a caption"}, None),
        ("txt", {"txt": b"cat"}, "cat"),
        ("json.species", {"json": b'{"species": "lynx", "label": "cat"}'}, "lynx"),
        ("json.a.b", {"json": b'{"a": {"b": "deep"}}'}, "deep"),
        (False, {"cls": b"cat"}, None),
    ],
)
def test_the_label_is_the_first_field_that_has_one(
    choice: LabelChoice, contents: dict[str, bytes], label: str | None
) -> None:
    fields = Fields(None, choice)
    assert fields.label_of(group(fields, jpg=b"x", **contents), "a") == label


@pytest.mark.parametrize(
    ("images", "chosen"),
    [
        (("png",), "png"),
        (("png", "jpg"), "jpg"),
        (("seg.png", "webp"), "webp"),
        ((), None),
    ],
)
def test_the_image_is_the_one_that_stands_out(images: tuple[str, ...], chosen: str | None) -> None:
    made = Group(images={image: tarfile.TarInfo() for image in images})
    assert image_of(made, "a") == chosen


def test_several_images_of_equal_rank_are_refused() -> None:
    made = Group(images={"png": tarfile.TarInfo(), "webp": tarfile.TarInfo()})
    with pytest.raises(DatasetError) as caught:
        image_of(made, "a/17")
    assert all(fact in str(caught.value) for fact in ("a/17", "png", "webp"))


@pytest.mark.parametrize(
    ("image", "label", "missing"), [("tiff", None, "tiff"), (None, "txt", "txt")]
)
def test_a_field_that_no_sample_has_is_refused(
    image: str | None, label: LabelChoice, missing: str
) -> None:
    fields = Fields(image, label)
    groups = {"a": group(fields, jpg=b"x", cls=b"cat")}
    with pytest.raises(DatasetError) as caught:
        fields.check(groups, Path("x.tar"))
    assert all(fact in str(caught.value) for fact in ("x.tar", missing))
