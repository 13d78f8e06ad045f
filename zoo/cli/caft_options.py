"""Options of the commands for cached-activation fine-tuning."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zoo.cli import caft
from zoo.cli.command import add_arguments
from zoo.cli.predict import predict
from zoo.cli.support import add_selection, add_store, positive
from zoo.cluster import CERTS

if TYPE_CHECKING:
    from zoo.caft.gpus import Devices


def add_commands(commands: Any) -> None:
    """Adds the commands to ``zoo``."""
    _add_features(commands)
    _add_train(commands)
    parser = add_arguments(commands, "predict", predict)
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="image file, or a folder of them"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE",
        help="a .csv file with the score of every class, or .jsonl (default: standard output)",
    )  # fmt: skip
    parser.add_argument("--model", help="model id (default: the head's)")
    parser.add_argument(
        "--top", type=positive, default=3, metavar="N", help="classes to print (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    _add_head(parser)
    parser = add_arguments(commands, "probe", caft.probe)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument("-k", type=positive, default=20, help="neighbours of the kNN (default: 20)")
    parser.add_argument(
        "--test", type=float, default=0.2, help="fraction of test images (default: 0.2)"
    )
    parser.add_argument(
        "--knn-images", type=positive, default=10_000, metavar="N",
        help="most test images that the kNN classifies, a random sample of more; the linear "
        "classifier always has all (default: 10,000)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default: 0)")
    parser = add_arguments(commands, "export-features", caft.export_features)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE",
        help="the table; its suffix is the format: .parquet, .arrow, .csv, .npz or .tar",
    )  # fmt: skip
    parser = add_arguments(commands, "export-head", caft.export_head)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .onnx file")
    _add_head(parser)


def _add_features(commands: Any) -> None:
    parser = add_arguments(commands, "features", caft.features)
    parser.set_defaults(resumes=True)
    parser.add_argument(
        "data",
        metavar="DATASET",
        help="a folder with one subfolder per class, a list file (path,label), a webdataset .tar, "
        "or hf:NAME[:SPLIT]",
    )
    parser.add_argument("--model", required=True, help="model id, as listed by zoo list")
    parser.add_argument(
        "-o", "--output", required=True, metavar="CACHE", help="folder of the feature cache"
    )
    parser.add_argument(
        "--augment",
        type=_count,
        default=0,
        metavar="N",
        help="number of randomly augmented views in addition to the plain one (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the views (default: 0)")
    parser.add_argument(
        "--storage",
        choices=("fp32", "fp16"),
        default="fp32",
        help="type of the stored features (default: fp32)",
    )
    parser.add_argument("--batch", type=positive, help="batch size (default: the engine's)")
    parser.add_argument("--workers", type=positive, help="decoding threads (default: one per core)")
    parser.add_argument(
        "--decode",
        choices=("auto", "pillow", "gpu", "fast"),
        default="auto",
        help="how photos are decoded: auto uses the GPU for JPEG files if possible, else Pillow; "
        "fast decodes large JPEG files at a half to an eighth of their size, which changes the "
        "features (default: auto)",
    )
    parser.add_argument(
        "--devices", type=_devices, metavar="N,N",
        help="GPUs to run on, numbered as by nvidia-smi, or all (default: the first, and idle "
        "ones that the engine runs on where 32,768 files or more are left for each)",
    )  # fmt: skip
    parser.add_argument(
        "--scheduler", metavar="ADDRESS",
        help="run on the workers of a cluster: the address of its scheduler, tls://host:8786 "
        "(default: this machine)",
    )  # fmt: skip
    parser.add_argument(
        "--certs", default="", metavar="DIR",
        help=f"folder of the cluster's certificates (default: ${CERTS})",
    )  # fmt: skip
    parser.add_argument(
        "--image-column", "--image-field", dest="image", metavar="NAME",
        help="the column or field of the image, if a Hugging Face data set or a tar has several "
        "(default: the only one)",
    )  # fmt: skip
    parser.add_argument(
        "--label-column", "--label-field", dest="label", metavar="NAME",
        help="the column of the label, or its field in a tar, such as cls, txt or json.species "
        "(default: label, labels or the only one; cls in a tar)",
    )  # fmt: skip
    parser.add_argument(
        "--no-labels", dest="label", action="store_const", const=False,
        help="ignore labels, for example because they are floats or lists",
    )  # fmt: skip
    parser.add_argument(
        "--split",
        help="the split to read of a folder with train/ and val/, or of hf:NAME "
        "(default: train for hf:NAME)",
    )
    parser.add_argument(
        "--exif", choices=("ignore", "apply"), default="ignore",
        help="rotate photos by their EXIF orientation; heads follow the setting of their cache "
        "(default: ignore)",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("parquet", "arrow", "csv", "npz", "webdataset"),
        help="also write names, labels and features as a table beside the cache: CACHE.parquet, "
        "or .tar for webdataset (default: the cache only)",
    )  # fmt: skip
    parser.add_argument(
        "--moved",
        action="store_true",
        help="the data set of the cache has moved to DATASET",
    )
    add_store(parser)
    add_selection(parser)


def _add_train(commands: Any) -> None:
    parser = add_arguments(commands, "train-head", caft.train)
    parser.add_argument("cache", metavar="CACHE", help="feature cache made by zoo features")
    parser.add_argument(
        "-o",
        "--output",
        default="head.safetensors",
        metavar="FILE",
        help="file to save the head to (default: head.safetensors)",
    )
    parser.add_argument(
        "--head",
        dest="kind",
        choices=("linear", "mlp"),
        default="linear",
        help="kind of head (default: linear)",
    )
    parser.add_argument(
        "--task",
        choices=("classification", "regression", "multi-label"),
        default="classification",
        help="what the head predicts (default: classification)",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a CSV file of labels, by sample name (default: the cache's labels)",
    )
    parser.add_argument(
        "--solver",
        choices=("adamw", "lbfgs", "sklearn"),
        default="adamw",
        help="optimiser (default: adamw)",
    )
    for name, kind, default, text in _TRAINING_OPTIONS:
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--no-plot", action="store_true", help="don't draw training curves")


def _add_head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--head", required=True, metavar="FILE", help="head trained by zoo train-head"
    )
    parser.add_argument(
        "--allow-other-engine",
        action="store_true",
        help="accept an engine of the head's model other than the one it was trained with",
    )
    add_store(parser)
    add_selection(parser)


def _devices(text: str) -> Devices:
    if text == "all":
        return "all"
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"{text} is neither all nor numbers such as 0,1")
    return tuple(int(number) for number in numbers)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1000:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 1000")
    return int(text)


_TRAINING_OPTIONS: tuple[tuple[str, Callable[[str], int | float], int | float, str], ...] = (
    ("--epochs", positive, 100, "maximum number of epochs"),
    ("--patience", positive, 10, "epochs without improvement before training stops"),
    ("--batch", positive, 1024, "batch size"),
    ("--learning-rate", float, 1e-3, "learning rate"),
    ("--weight-decay", float, 1e-2, "weight decay"),
    ("--hidden", positive, 512, "width of the mlp's hidden layer"),
    ("--dropout", float, 0.2, "dropout of the mlp"),
    ("--val", float, 0.1, "fraction of validation images, which decide when training stops"),
    ("--test", float, 0.2, "fraction of test images"),
    ("--seed", int, 0, "seed of the split, initial weights and order"),
)
