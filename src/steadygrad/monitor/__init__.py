"""Watch any training for almost nothing, and name the layer when it breaks."""

from steadygrad.monitor.launch import find_trainings
from steadygrad.monitor.monitor import Monitor
from steadygrad.monitor.run import RunFolder, read_run
from steadygrad.monitor.sinks import JsonLines, read_log
from steadygrad.monitor.tensorboard import TensorBoard
from steadygrad.monitor.wandb import WandB

__all__ = ["JsonLines", "Monitor", "RunFolder", "TensorBoard", "WandB", "find_trainings", "read_log", "read_run"]
