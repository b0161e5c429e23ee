"""Grids of small trainings as data: fast, resumable, from one core to a cluster."""

from steadygrad.lab.article import mlp, mnist_grid
from steadygrad.lab.export import export
from steadygrad.lab.grid import Factory, Grid
from steadygrad.lab.result import Configuration, Result
from steadygrad.lab.runner import run, stored
from steadygrad.lab.store import Store

__all__ = ["Configuration", "Factory", "Grid", "Result", "Store", "export", "mlp", "mnist_grid", "run", "stored"]
