"""Decides: prescribe, apply, verify, treat."""

from steadygrad.doctor.apply import apply
from steadygrad.doctor.budget import Budget
from steadygrad.doctor.cured import load_cured, save_cured
from steadygrad.doctor.prescribe import prescribe
from steadygrad.doctor.runner import Progress
from steadygrad.doctor.treat import treat
from steadygrad.doctor.treatment import Treatment
from steadygrad.doctor.verify import verify

__all__ = ["Budget", "Progress", "Treatment", "apply", "load_cured", "prescribe", "save_cured", "treat", "verify"]
