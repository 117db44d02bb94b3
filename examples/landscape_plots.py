"""The plots of the example of flat landscapes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from jaxlirpa import landscape
from jaxlirpa.landscape import plotting

COLOURS = {"plain": "#d1495b", "flat": "#00798c"}
NAMES = {"plain": "plain training", "flat": "certified-flat training"}


def plot_bands(
    path: Path,
    title: str,
    loss: Callable[..., jax.Array],
    networks: dict[str, Any],
    data: Sequence[jax.Array],
    most: float,
) -> None:
    """The certified band of each network over the radius, and what was found inside it."""
    radii = jnp.linspace(0, most, 9)

    @jax.jit
    def examine(params: Any, data: Sequence[jax.Array]) -> tuple:
        def found(radius: jax.Array) -> tuple:
            ball = landscape.every_matrix(params, radius)
            key = jax.random.key(0)
            search = landscape.attained(loss, key=key, starts=2)(ball, *data)
            return search, landscape.sampled(loss, key=key, count=30)(ball, *data)

        return landscape.certified_band(loss, radii)(params, *data), *jax.lax.map(found, radii)

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    lowest: list[jax.Array] = []
    for (name, params), own in zip(networks.items(), axes, strict=True):
        band, search, values = examine(params, data)
        lowest.append(band.lower)
        plotting.draw_band(
            own,
            radii,
            band,
            label="certified",
            color=COLOURS[name],
            attained=search,
            sampled=values,
        )
        own.set_title(NAMES[name], fontsize=10)
        own.legend(loc="upper left", frameon=False, fontsize=9)
        own.spines[["top", "right"]].set_visible(False)
    least = min(float(limit[0]) for limit in lowest)
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=least / 2)
    axes[1].set_ylabel("")
    _save(figure, path, title)


def plot_slices(
    path: Path,
    title: str,
    loss: Callable[..., jax.Array],
    networks: dict[str, Any],
    data: Sequence[jax.Array],
    extent: float,
) -> None:
    """The loss on a random plane through each network's weights, in its certified band."""

    @jax.jit
    def examine(params: Any, data: Sequence[jax.Array]) -> landscape.Slice:
        directions = landscape.random_directions(jax.random.key(1), params)
        return landscape.certified_slice(loss, directions, extent=extent, cells=12)(params, *data)

    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    slices = {name: examine(params, data) for name, params in networks.items()}
    heights = [np.asarray(x) for s in slices.values() for x in (s.lower, s.upper)]
    for k, (name, found) in enumerate(slices.items()):
        axes = figure.add_subplot(1, 2, k + 1, projection="3d")
        plotting.draw_slice(axes, found)
        axes.set_zlim(min(map(np.min, heights)), max(map(np.max, heights)))
        axes.set_title(NAMES[name], fontsize=10)
    _save(figure, path, title)


def plot_bits(
    path: Path,
    title: str,
    bits: Sequence[int],
    kinds: Sequence[str],
    quantised: dict[str, np.ndarray],
    whole: dict[str, np.ndarray],
) -> None:
    """Test accuracy over the number of bits: means over seeds, and their standard deviations."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    places = np.arange(len(bits))
    for i, (own, kind) in enumerate(zip(axes, kinds, strict=True)):
        for shift, (name, values) in zip((-0.06, 0.06), quantised.items(), strict=True):
            values, colour = 100 * values[:, i], COLOURS[name]
            own.errorbar(
                places + shift,
                values.mean(0),
                values.std(0),
                color=colour,
                marker="o",
                ms=4,
                capsize=3,
                label=NAMES[name],
            )
            own.axhline(100 * whole[name].mean(), color=colour, linestyle=":", linewidth=1)
        own.set_xticks(places, map(str, bits))
        own.set_xlabel(f"bits a weight, one scale a {kind}")
        own.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(loc="lower left", frameon=False, fontsize=9)
    _save(figure, path, title)


def _save(figure: Any, path: Path, title: str) -> None:
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)
    plt.close(figure)
