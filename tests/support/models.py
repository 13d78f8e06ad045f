"""Models that many tests use, by their manifest's name."""

from __future__ import annotations

from support.paths import DATA

LITE = "efficientnet_lite0"
"""A model whose real weights come from a package index: the smallest of them."""

SMALL = "mobilenetv3_small_100"
"""The smallest model: for dry runs, with seeded weights."""

TINY = DATA / "test_resnet.toml"
"""Manifest of a network that timm has for tests: where a test is about no model in particular."""

MISSION = {
    "vgg16_bn": 25088,
    "vgg19_bn": 25088,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
    "efficientnet_b0": 1280,
    "efficientnet_b1": 1280,
    "efficientnet_b2": 1408,
    "efficientnet_b3": 1536,
    "efficientnet_b4": 1792,
    "efficientnet_b5": 2048,
    "efficientnet_b6": 2304,
    "efficientnet_b7": 2560,
    "efficientnet_lite0": 1280,
    "efficientnet_lite1": 1280,
    "efficientnet_lite2": 1280,
    "mobilenetv2_100": 1280,
    "mobilenetv3_large_100": 960,
    "mobilenetv3_small_100": 576,
    "vit_base_patch16_224": 768,
    "vit_large_patch16_224": 1024,
    "inception_v3": 2048,
    "densenet121": 1024,
    "densenet169": 1664,
}
"""The models of the mission, with the width of their features."""
