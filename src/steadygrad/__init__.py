"""steadygrad keeps the gradients of deep networks steady: it diagnoses, prescribes, applies and proves."""

from steadygrad.diagnosis import diagnose
from steadygrad.doctor import Budget, Treatment, apply, load_cured, prescribe, save_cured, treat, verify
from steadygrad.errors import SteadygradError, SteadygradWarning
from steadygrad.monitor import Monitor
from steadygrad.records import Blueprint, Diagnosis, Finding, Observation, Prescription, Step
from steadygrad.remedies import Remedy, attach, chain
from steadygrad.training import Processes, TrainingSetup

__version__ = "0.1.0.dev0"

__all__ = [
    "Blueprint",
    "Budget",
    "Diagnosis",
    "Finding",
    "Monitor",
    "Observation",
    "Prescription",
    "Processes",
    "Remedy",
    "SteadygradError",
    "SteadygradWarning",
    "Step",
    "TrainingSetup",
    "Treatment",
    "__version__",
    "apply",
    "attach",
    "chain",
    "diagnose",
    "load_cured",
    "prescribe",
    "save_cured",
    "treat",
    "verify",
]
