"""Measuring, honestly: robust accuracy, detection, false alarms."""
