"""Image sets: bundled photos, calibration images, labelled photos."""
