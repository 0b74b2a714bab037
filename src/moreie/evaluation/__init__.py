"""Metrics, significance, calibration, result files and plots."""
