"""Instruments: read a network, judge nothing."""

from steadygrad.signals.blueprint import read_blueprint
from steadygrad.signals.moments import batch_deviation, moments, sum_of_squares
from steadygrad.signals.probe import probe
from steadygrad.signals.recorder import Recorder

__all__ = ["Recorder", "batch_deviation", "moments", "probe", "read_blueprint", "sum_of_squares"]
