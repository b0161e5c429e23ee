"""Instruments: read a network, judge nothing."""

from steadygrad.signals.blueprint import read_blueprint
from steadygrad.signals.moments import batch_deviation, moments, sum_of_squares
from steadygrad.signals.outlook import OUTLOOK_STEPS, look_ahead
from steadygrad.signals.probe import probe
from steadygrad.signals.recorder import Recorder

__all__ = [
    "OUTLOOK_STEPS",
    "Recorder",
    "batch_deviation",
    "look_ahead",
    "moments",
    "probe",
    "read_blueprint",
    "sum_of_squares",
]
