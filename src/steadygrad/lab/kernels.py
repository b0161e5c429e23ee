"""Compiled code: many steps of one multilayer perceptron as one function, and optimizer steps; needs numba.

Only this file imports numba. What a step costs at a small batch is not the products but walking through the weights
for every part of the update and calling from Python. Here a span of steps of a run is one call: each layer's weight
gradient is used by the update while it lies in the cache, the update is one pass over weights and state, and a run's
whole state stays in the cache, because runs go one after the other. On a processor core that beats a stack of runs as
wide products, which are no faster there than narrow ones. Inputs that are mostly zeros, as the background of images,
are read without them.

Weights are kept as ``(in, out)``, a layer's bias after its weight, all of a run in one row. ``data`` is a tuple of the
inputs as a dense array of shape ``(rows, features)``, and as starts, columns and values of a sparse one by rows; one of
the two is empty.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["advance", "count_right", "update_rows"]

# Codes of optimizers and activations, as in lab.update and lab.compiled.
SGD, RMSPROP, ADAGRAD, ADADELTA, ADAM = range(5)
RELU, TANH, SIGMOID = range(3)

SCORED_ROWS = 200  # at a time: their activations stay in the cache

# Sums may be reordered to use vector registers; NaN and infinity keep their meaning, as divergence has to be seen.
_compiled = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})


@_compiled
def advance(data, targets, order, sizes, activation, kind, hyper, step, weights, first, second):
    """Train one run for a span of steps, in place.

    Args:
        data: All training inputs.
        targets: Their classes, shape ``(rows,)``, int64.
        order: Rows of each batch, shape ``(steps, batch)``.
        sizes: Width of each layer, the input's first, the number of classes last.
        activation: Code of what follows each layer but the last.
        kind: Code of the optimizer.
        hyper: Its constants, a float64 array; see :class:`steadygrad.lab.update.Rule`.
        step: Optimizer steps made before.
        weights: All parameters in a row, updated.
        first: The optimizer's first state, like ``weights``, updated.
        second: Its second one.

    Returns:
        The loss of each step, NaN after the first that is not finite: then the run has stopped.
    """
    steps, batch = order.shape
    starts = _places(sizes, batch)
    depth = len(sizes) - 1
    outputs = np.empty(starts[-1], weights.dtype)
    errors = np.empty(starts[-1], weights.dtype)
    gradient = np.empty_like(weights)
    losses = np.full(steps, np.nan)
    top = slice(starts[depth], starts[depth + 1])
    for now in range(steps):
        rows = order[now]
        _forward(data, rows, weights, sizes, starts, activation, outputs)
        shape = (batch, sizes[depth])
        loss = _cross_entropy(outputs[top].reshape(shape), targets, rows, errors[top].reshape(shape))
        losses[now] = loss
        if not np.isfinite(loss):
            break
        end = len(weights)
        for layer in range(depth - 1, -1, -1):
            begin = end - (sizes[layer] + 1) * sizes[layer + 1]
            _backward(data, rows, weights, sizes, starts, activation, layer, begin, outputs, errors, gradient)
            part = slice(begin, end)
            _update(kind, hyper, step + now + 1, weights[part], gradient[part], first[part], second[part])
            end = begin
    return losses


@_compiled
def count_right(data, targets, sizes, activation, weights):
    """Return for how many rows the largest output is the target's; none where outputs are not finite."""
    starts = _places(sizes, SCORED_ROWS)
    outputs = np.empty(starts[-1], weights.dtype)
    depth, right = len(sizes) - 1, 0
    for begin in range(0, len(targets), SCORED_ROWS):
        rows = np.arange(begin, min(begin + SCORED_ROWS, len(targets)))
        _forward(data, rows, weights, sizes, starts, activation, outputs)
        logits = outputs[starts[depth] : starts[depth] + len(rows) * sizes[depth]].reshape(len(rows), sizes[depth])
        for sample in range(len(rows)):
            best, finite = 0, True
            for unit in range(sizes[depth]):
                finite = finite and np.isfinite(logits[sample, unit])
                best = unit if logits[sample, unit] > logits[sample, best] else best
            right += finite and best == targets[rows[sample]]
    return right


@_compiled
def update_rows(codes, constants, step, weights, gradient, first, second):
    """Make one optimizer step of a stack of runs, a row each; see :class:`steadygrad.lab.update.Update`."""
    for row in range(len(codes)):
        _update(codes[row], constants[row], step, weights[row], gradient[row], first[row], second[row])


@_compiled
def _places(sizes, batch):
    """Return where each layer's outputs start in one row of memory; the batch itself comes first."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    for layer in range(len(sizes)):
        starts[layer + 1] = starts[layer] + batch * sizes[layer]
    return starts


@_compiled
def _forward(data, rows, weights, sizes, starts, activation, outputs):
    batch, begin = len(rows), 0
    dense, heads, columns, values = data
    if len(dense):
        for sample in range(batch):
            outputs[sample * sizes[0] : (sample + 1) * sizes[0]] = dense[rows[sample]]
    for layer in range(len(sizes) - 1):
        wide, narrow = sizes[layer], sizes[layer + 1]
        above = outputs[starts[layer + 1] : starts[layer + 1] + batch * narrow].reshape(batch, narrow)
        bias = begin + wide * narrow
        matrix = weights[begin:bias].reshape(wide, narrow)
        if layer == 0 and not len(dense):
            for sample in range(batch):
                span = slice(heads[rows[sample]], heads[rows[sample] + 1])
                _sparse_row(columns[span], values[span], matrix, above[sample])
        else:
            below = outputs[starts[layer] : starts[layer] + batch * wide].reshape(batch, wide)
            np.dot(below, matrix, above)
        begin = bias + narrow
        for sample in range(batch):
            for unit in range(narrow):
                above[sample, unit] += weights[bias + unit]
        if layer < len(sizes) - 2:
            _activate(activation, outputs[starts[layer + 1] : starts[layer + 1] + batch * narrow])


@_compiled
def _sparse_row(columns, values, matrix, out):
    """Multiply a sparse row with a matrix, four entries at a time, so that sums are seldom written back."""
    out[:] = 0
    whole = len(columns) - len(columns) % 4
    for i in range(0, whole, 4):
        a, b, c, d = matrix[columns[i]], matrix[columns[i + 1]], matrix[columns[i + 2]], matrix[columns[i + 3]]
        w, x, y, z = values[i], values[i + 1], values[i + 2], values[i + 3]
        for unit in range(len(out)):
            out[unit] += (w * a[unit] + x * b[unit]) + (y * c[unit] + z * d[unit])
    for i in range(whole, len(columns)):
        row = matrix[columns[i]]
        for unit in range(len(out)):
            out[unit] += values[i] * row[unit]


@_compiled
def _activate(activation, values):
    one, zero = values.dtype.type(1), values.dtype.type(0)
    for i in range(len(values)):
        if activation == RELU:
            values[i] = zero if values[i] < zero else values[i]  # NaN stays NaN
        elif activation == TANH:
            values[i] = np.tanh(values[i])
        else:
            values[i] = one / (one + np.exp(-values[i]))


@_compiled
def _cross_entropy(logits, targets, rows, errors):
    """Write the gradient of the mean cross-entropy into ``errors`` and return the loss."""
    batch, classes = logits.shape
    share = logits.dtype.type(1.0 / batch)
    total = 0.0
    for sample in range(batch):
        top = logits[sample, 0]
        for unit in range(1, classes):
            top = max(top, logits[sample, unit])
        mass = logits.dtype.type(0)
        for unit in range(classes):
            errors[sample, unit] = np.exp(logits[sample, unit] - top)
            mass += errors[sample, unit]
        target = targets[rows[sample]]
        total += np.log(mass) + top - logits[sample, target]
        for unit in range(classes):
            errors[sample, unit] *= share / mass
        errors[sample, target] -= share
    return total / batch


@_compiled
def _backward(data, rows, weights, sizes, starts, activation, layer, begin, outputs, errors, gradient):
    """Write a layer's gradient, and the error of the layer below it before that one's activation."""
    wide, narrow, batch = sizes[layer], sizes[layer + 1], len(rows)
    dense, heads, columns, values = data
    below = outputs[starts[layer] : starts[layer + 1]]
    error = errors[starts[layer + 1] : starts[layer + 2]].reshape(batch, narrow)
    bias = begin + wide * narrow
    matrix = gradient[begin:bias].reshape(wide, narrow)
    if layer == 0 and not len(dense):
        matrix[:] = 0
        for sample in range(batch):
            for i in range(heads[rows[sample]], heads[rows[sample] + 1]):
                row, value = matrix[columns[i]], values[i]
                for unit in range(narrow):
                    row[unit] += value * error[sample, unit]
    else:
        np.dot(below.reshape(batch, wide).T, error, matrix)
    gradient[bias : bias + narrow] = 0
    for sample in range(batch):
        for unit in range(narrow):
            gradient[bias + unit] += error[sample, unit]
    if layer == 0:
        return
    passed = errors[starts[layer] : starts[layer + 1]]
    np.dot(error, weights[begin:bias].reshape(wide, narrow).T, passed.reshape(batch, wide))
    one, zero = weights.dtype.type(1), weights.dtype.type(0)
    for i in range(len(passed)):
        value = below[i]
        if activation == RELU:
            passed[i] = passed[i] if value > zero else zero
        elif activation == TANH:
            passed[i] *= one - value * value
        else:
            passed[i] *= value * (one - value)


@_compiled
def _update(kind, hyper, step, weights, gradient, first, second):
    """Make one optimizer step; the formulas are those of :mod:`steadygrad.lab.update`."""
    cast = weights.dtype.type
    lr, decay, eps = hyper[0], cast(hyper[1]), cast(hyper[2])
    keep, keep_second = cast(hyper[3]), cast(hyper[4])
    new, new_second = cast(1.0 - hyper[3]), cast(1.0 - hyper[4])
    if kind == SGD:
        rate = cast(lr)
        if hyper[3] == 0:
            for i in range(len(weights)):
                weights[i] -= rate * (gradient[i] + decay * weights[i])
        else:
            for i in range(len(weights)):
                first[i] = keep * first[i] + gradient[i] + decay * weights[i]
                weights[i] -= rate * first[i]
    elif kind == RMSPROP:
        rate = cast(lr)
        for i in range(len(weights)):
            g = gradient[i] + decay * weights[i]
            first[i] = keep * first[i] + new * g * g
            weights[i] -= rate * g / (np.sqrt(first[i]) + eps)
    elif kind == ADAGRAD:
        rate = cast(lr / (1.0 + (step - 1) * hyper[3]))
        for i in range(len(weights)):
            g = gradient[i] + decay * weights[i]
            first[i] += g * g
            weights[i] -= rate * g / (np.sqrt(first[i]) + eps)
    elif kind == ADADELTA:
        rate = cast(lr)
        for i in range(len(weights)):
            g = gradient[i] + decay * weights[i]
            first[i] = keep * first[i] + new * g * g
            change = np.sqrt(second[i] + eps) / np.sqrt(first[i] + eps) * g
            second[i] = keep * second[i] + new * change * change
            weights[i] -= rate * change
    else:
        rate = cast(lr / (1.0 - hyper[3] ** step))
        scale = cast(1.0 / np.sqrt(1.0 - hyper[4] ** step))
        for i in range(len(weights)):
            g = gradient[i] + decay * weights[i]
            first[i] = keep * first[i] + new * g
            second[i] = keep_second * second[i] + new_second * g * g
            weights[i] -= rate * first[i] / (np.sqrt(second[i]) * scale + eps)
