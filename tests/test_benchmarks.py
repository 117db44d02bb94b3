"""What the benchmarks count and write down; what they measure is not tested."""

from __future__ import annotations

import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import needed, page, table, tightness
from benchmarks.compare import compare
from benchmarks.jax_network import relu_operands
from benchmarks.measure import Measurement, measure
from benchmarks.networks import MLP, Conv, Network, Relu, Residual
from benchmarks.workloads import Workload

HIDDEN, FIRST = 256 * 256, 784 * 256
IMAGE = (28, 28, 1)


def test_rows_of_dense_layers() -> None:
    """Behind the first layer a row is a row of its matrix; from the last it passes the others."""
    nodes = needed.expand(MLP, (784,))
    assert needed.per_row(nodes, 0) == 0
    assert needed.per_row(nodes, 2) == FIRST
    assert needed.per_row(nodes, len(nodes) - 1) == 4 * HIDDEN + FIRST


def test_crown_takes_intervals_and_rows_for_what_is_open() -> None:
    workload = Workload("any", MLP, (784,), 2, 0.1)
    forward, final = FIRST + 4 * HIDDEN + 256 * 10, 10 * (FIRST + 4 * HIDDEN)
    nothing_open = needed.multiply_adds(workload, [0] * 5)
    assert nothing_open == 2 * (2 * forward + 2 * final)
    assert needed.multiply_adds(workload, [9, 1, 0, 0, 0]) - nothing_open == 2 * FIRST


@pytest.mark.parametrize(
    "network",
    [
        (Conv(2, 4, 2), Relu(), Conv(3, 3), Relu()),
        (Conv(2), Relu(), Residual(3, 2), Residual(3)),
    ],
    ids=["plain", "residual"],
)
def test_a_row_reaches_the_pixels_that_its_own_depends_on(network: Network) -> None:
    workload = Workload("any", network, IMAGE, 1, 0.1)
    positive = jax.tree.map(lambda w: abs(w) + 1, workload.weights())
    x = jnp.ones((1, *IMAGE), jnp.float32)

    def entry(x: jax.Array) -> jax.Array:
        last = relu_operands(workload)(positive, x)[-1]
        return last[0, last.shape[1] // 2, last.shape[2] // 2, 0]

    seen = np.nonzero(np.asarray(jax.grad(entry)(x)).sum((0, -1)))
    extent = tuple(int(axis.max() - axis.min()) + 1 for axis in seen)
    nodes = needed.expand(network, IMAGE)
    (operand,) = nodes[-1].operands
    assert needed.reach(nodes, operand)[-1].window == extent


def measurement(**arrays: Any) -> Measurement:
    found = {name: np.asarray(x, float) for name, x in arrays.items()}
    return Measurement(seconds=[0.5], base_mib=10, run_mib=30, peak_mib=40, arrays=found)


def test_comparison_of_widths() -> None:
    ours = measurement(lower=[-1, -3], upper=[1, 3], centre=[0, 0])
    found = compare(ours, measurement(lower=[-2, -2], upper=[2, 6]))
    assert found == {"width": 4 / 6, "looser": 1 / 6, "tighter": 3 / 6}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise MemoryError('much')", "MemoryError: much"),
        ("import os, signal; print('?', file=sys.stderr); os.kill(os.getpid(), 9)", "by SIGKILL"),
    ],
)
def test_a_contender_that_fails_says_how(code: str, words: str) -> None:
    """Where memory runs out the system kills, and the last words are about something else."""
    command = [sys.executable, "-c", f"import sys; {code}"]
    assert words in measure({"it": command}, {}, 1)["it"].error


def test_the_page_is_filled_anew() -> None:
    ours, theirs = measurement().summary(), measurement().summary() | {"median": 2.0}
    record = {
        "workload": "any",
        "needed": 10**9,
        "contenders": {table.OURS: ours, "other": theirs},
        "comparison": {"other": {"width": 1.0, "looser": 0.0}},
    }
    report = {
        "processor": "a processor",
        "memory_gib": 1,
        "threads": 2,
        "versions": {"jax": "1"},
        "peaks": {"jax": 1e10},
        "peak": 1e10,
        "load": 0.0,
        "xla_flags": "",
        "quick": False,
        "repeats": 7,
        "rows": [record],
    }
    filled = page.fill(page.PAGE.read_text(), report, report)
    assert page.fill(filled, report, report) == filled
    assert "| `any` | other | 0.5 | 2 | 4.00 | 1.0000 | 0e+00 | - |" in filled
    assert "| `any` | other | 1 | 0.1 | 20.0% | 5.0% |" in filled


def test_the_page_of_widths_has_its_cases() -> None:
    assert len(set(tightness.CASES)) == len(tightness.CASES) > 40
    width = re.compile(r"\| `mlp_relu_linf_a` \| ibp \| \S+ \| \S+ \| 1\.0000 \| \S+ \|")
    assert width.fullmatch(tightness.row("mlp_relu_linf_a", "ibp"))
