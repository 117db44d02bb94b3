"""Plots of certified landscapes; needs matplotlib, which jaxlirpa itself does not.

Every function draws into axes that it is given, and leaves titles and files to the caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from mpl_toolkits.mplot3d.axes3d import Axes3D

from jaxlirpa._types import Array, ArrayLike, Bounds
from jaxlirpa.landscape.slices import Slice

_FOUND = "#444444"


def draw_band(
    axes: Axes,
    radii: ArrayLike,
    band: Bounds,
    *,
    label: str,
    color: Any = "C0",
    sampled: Array | None = None,
    attained: Bounds | None = None,
) -> None:
    """A certified band over the radius, with what was found inside it.

    Args:
        axes: to draw into.
        radii: `[radii]`.
        band: certified bounds, `[radii]`.
        label: what the band is of.
        color: of the band.
        sampled: `[radii, samples]`, values at random members.
        attained: `[radii]`, the extreme values that a search found.
    """
    r = np.asarray(radii)
    lower, upper = (np.asarray(limit) for limit in band)
    axes.fill_between(r, lower, upper, color=color, alpha=0.25, linewidth=0, label=label)
    for limit in (lower, upper):
        axes.plot(r, limit, color=color, linewidth=1.5)
    if attained is not None:
        names = ("found by gradients", None)
        for limit, name in zip(attained, names, strict=True):
            axes.plot(r, np.asarray(limit), "--", color=color, linewidth=1.2, label=name)
    if sampled is not None:
        low, high = np.min(sampled, -1), np.max(sampled, -1)
        axes.fill_between(r, low, high, color=_FOUND, alpha=0.6, linewidth=0, label="sampled")
    axes.set_xlabel("radius of the weight ball")
    axes.set_ylabel("loss")
    axes.set_xlim(r.min(), r.max())


def draw_slice(axes: Axes3D, found: Slice, *, color_map: str = "viridis") -> None:
    """A loss as a surface between the certified bounds of its cells.

    Args:
        axes: with three dimensions, `figure.add_subplot(projection="3d")`.
        found: the slice.
        color_map: of the surface.
    """
    edges = np.asarray(found.edges)
    corners = np.meshgrid(edges, edges, indexing="ij")
    middles = np.meshgrid(*[(edges[1:] + edges[:-1]) / 2] * 2, indexing="ij")
    for limit in (found.lower, found.upper):
        axes.plot_wireframe(*middles, np.asarray(limit), color=_FOUND, linewidth=0.4, alpha=0.7)
    axes.plot_surface(
        *corners, np.asarray(found.values), cmap=color_map, linewidth=0, antialiased=True, alpha=0.9
    )
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    axes.set_zlabel("loss")
    axes.set_box_aspect(None, zoom=0.85)  # leaves room for the labels
    axes.locator_params(nbins=5)
    axes.tick_params(labelsize=8)


def draw_heights(axes: Axes, found: Slice, *, radius: float | None = None) -> Any:
    """A loss as a map of heights, with the certified upper bounds as lines.

    Args:
        axes: to draw into.
        found: the slice.
        radius: of a circle to mark.

    Returns:
        The image, for a colour bar.
    """
    edges = np.asarray(found.edges)
    middles = (edges[1:] + edges[:-1]) / 2
    image = axes.contourf(edges, edges, np.asarray(found.values).T, levels=20, cmap="viridis")
    lines = axes.contour(
        middles, middles, np.asarray(found.upper).T, levels=8, colors="white", linewidths=0.8
    )
    axes.clabel(lines, fontsize=7)
    if radius is not None:
        axes.add_patch(Circle((0, 0), radius, fill=False, color="C3", linestyle="--"))
    axes.set_xlabel("first direction")
    axes.set_ylabel("second direction")
    axes.set_aspect("equal")
    return image
