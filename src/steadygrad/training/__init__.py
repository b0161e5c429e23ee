"""What is being treated, and the smallest honest training loop."""

from steadygrad.training.batches import (
    device_of,
    first_batch,
    floating_dtype,
    is_arrays,
    move,
    one_pass,
    row_count,
    seed_of_pass,
    shuffled_rows,
    split,
    target_of,
)
from steadygrad.training.blame import blamed, describe
from steadygrad.training.copied import copied
from steadygrad.training.executor import Executor, Processes, Serial, register_by_value
from steadygrad.training.forward import Step, call_model, input_tensors, output_tensor, run_batch, run_loss, run_model
from steadygrad.training.learning_rate import RateSearch, WithLearningRate, search_learning_rate
from steadygrad.training.loop import Training, foreign_parameters, make_optimizer, trainable
from steadygrad.training.metric import Task, chance_of, evaluate, labels_of, task_of
from steadygrad.training.redraw import shuffle_weights
from steadygrad.training.setup import Batch, Data, TrainingSetup
from steadygrad.training.snapshot import preserved, preserved_random_state, seeded

__all__ = [
    "Batch",
    "Data",
    "Executor",
    "Processes",
    "RateSearch",
    "Serial",
    "Step",
    "Task",
    "Training",
    "TrainingSetup",
    "WithLearningRate",
    "blamed",
    "call_model",
    "chance_of",
    "copied",
    "describe",
    "device_of",
    "evaluate",
    "first_batch",
    "floating_dtype",
    "foreign_parameters",
    "input_tensors",
    "is_arrays",
    "labels_of",
    "make_optimizer",
    "move",
    "one_pass",
    "output_tensor",
    "preserved",
    "preserved_random_state",
    "register_by_value",
    "row_count",
    "run_batch",
    "run_loss",
    "run_model",
    "search_learning_rate",
    "seed_of_pass",
    "seeded",
    "shuffle_weights",
    "shuffled_rows",
    "split",
    "target_of",
    "task_of",
    "trainable",
]
