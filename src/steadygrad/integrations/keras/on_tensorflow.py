"""Keras on TensorFlow: one traced pass, whose graph tells where each tensor comes from."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from steadygrad.integrations.keras.recorder import Gradients, Recorder

__all__ = ["TensorFlow"]

Tensor = Any


class TensorFlow:
    """TensorFlow is imported by the pass itself, so that the file can be read where it is not installed."""

    def node(self, tensor: Tensor) -> Hashable:
        """Return the operation that made a tensor."""
        return tensor.op

    def before(self, node: Any) -> Iterable[Hashable]:
        """Return the operations whose results went into one."""
        return (tensor.op for tensor in node.inputs)

    def name(self, node: Any) -> str:
        """Return the kind of an operation, in lower case."""
        return str(node.type).lower()

    def differentiate(
        self, forward: Callable[[Any], tuple[Tensor, Any]], batch: Any, recorder: Recorder, variables: Sequence[Any]
    ) -> Gradients:
        """Run ``forward(batch) -> loss, output``, and return gradients at all recorded outputs and variables."""
        import tensorflow as tf

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow has no types
        def run(batch: Any) -> tuple[Any, ...]:
            with tf.GradientTape() as tape:
                loss, output = forward(batch)
            wanted = [*recorder.outputs, *(variable.value for variable in variables)]
            places = [place for place, tensor in enumerate(wanted) if tensor is not None]
            grads: list[Tensor] = [None] * len(wanted)
            found = tape.gradient(loss, [wanted[place] for place in places])
            for place, grad in zip(places, found, strict=True):
                grads[place] = None if grad is None else tf.convert_to_tensor(grad)  # of an embedding they are sparse
            count = len(recorder.outputs)
            return loss, output, recorder.outputs, recorder.entries, grads[:count], grads[count:]

        return Gradients(*run(batch))
