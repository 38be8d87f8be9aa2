"""Training: classifiers, the detector, calibration, and packs out of all three."""
