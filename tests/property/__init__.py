"""Hypothesis models and laws."""
