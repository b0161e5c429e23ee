"""Plain frozen data that flows through the package. Imports nothing heavy."""

from steadygrad.records.blueprint import Blueprint, Layer, Range, Role, TargetKind
from steadygrad.records.finding import Diagnosis, Finding, Severity, Symptom
from steadygrad.records.forecast import Forecast, Prospect
from steadygrad.records.history import History
from steadygrad.records.observation import LayerStats, Moments, Observation, Outlook
from steadygrad.records.prescription import Prescription, Step
from steadygrad.records.proof import Proof, Verdict
from steadygrad.records.serial import to_json, to_plain, whole_file, write_whole
from steadygrad.records.trial import Outcome, Part, Run, Trial

__all__ = [
    "Blueprint",
    "Diagnosis",
    "Finding",
    "Forecast",
    "History",
    "Layer",
    "LayerStats",
    "Moments",
    "Observation",
    "Outcome",
    "Outlook",
    "Part",
    "Prescription",
    "Proof",
    "Prospect",
    "Range",
    "Role",
    "Run",
    "Severity",
    "Step",
    "Symptom",
    "TargetKind",
    "Trial",
    "Verdict",
    "to_json",
    "to_plain",
    "whole_file",
    "write_whole",
]
