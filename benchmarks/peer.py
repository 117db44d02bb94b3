"""auto_LiRPA's side: ``python -m benchmarks.peer WORKLOAD --checkout PATH``, a worker."""

import argparse
import functools
import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from .worker import Arrays, serve, use_cores
from .workloads import (
    CLASSES,
    Conv,
    Dense,
    Flatten,
    Layer,
    Relu,
    Residual,
    Shape,
    Weights,
    Workload,
    named,
    shapes,
)

METHODS = {
    "ibp": "IBP",
    "crown": "CROWN",
    "crown_ibp": "CROWN-IBP",
    "alpha_crown": "CROWN-Optimized",
    "alpha_crown_inner": "CROWN-Optimized",
}


class Block(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x))."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first(x))
        return torch.relu(self.second(inner) + self.shortcut(x))


def module(layer: Layer, weights: Weights, image: Shape | None) -> nn.Module:
    """One layer; ``image`` is the shape that was flattened to give its input, if any."""
    match layer:
        case Dense():
            ((kernel, bias),) = weights
            if image is not None:  # torch flattens channels first.
                kernel = kernel.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            return _filled(nn.Linear(*kernel.shape), kernel.T, bias)
        case Conv(features, size, stride, padding):
            ((kernel, bias),) = weights
            conv = nn.Conv2d(kernel.shape[2], features, size, stride, padding)
            return _filled(conv, kernel.transpose(3, 2, 0, 1), bias)
        case Residual():
            pairs = zip(layer.convs, weights, strict=True)
            return Block(*(module(conv, (pair,), None) for conv, pair in pairs))
        case Flatten():
            return nn.Flatten()
        case Relu():
            return nn.ReLU()


def _filled(layer: nn.Linear | nn.Conv2d, kernel: np.ndarray, bias: np.ndarray) -> nn.Module:
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
    layer.bias.data = torch.from_numpy(bias)
    return layer


def network(workload: Workload) -> nn.Module:
    """The workload's network with its weights."""
    modules, image = [], None
    received = shapes(workload.network, workload.shape)
    for layer, weights, shape in zip(workload.network, workload.weights(), received, strict=True):
        modules.append(module(layer, weights, image))
        image = shape if isinstance(layer, Flatten) else None
    return nn.Sequential(*modules)


def margins(label: np.ndarray) -> torch.Tensor:
    """The specification matrices of the label's margins over the other classes."""
    others = (label[:, None] + np.arange(1, CLASSES)) % CLASSES
    eye = np.eye(CLASSES, dtype=np.float32)
    return torch.from_numpy(eye[label][:, None] - eye[others])


def use_legacy_exporter() -> None:
    """Undo what recent versions of torch changed in the exporter that auto_LiRPA traces with."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        return
    exporter = "torch.onnx._internal.torchscript_exporter"
    for opset in range(11, 21):
        importlib.import_module(f"{exporter}.symbolic_opset{opset}")
    settings = importlib.import_module(f"{exporter}._globals").GLOBALS
    settings.export_onnx_opset_version = 17


def measured(workload: Workload) -> Callable[[], Any]:
    """Builds the bounded module; a run computes bounds or a gradient of a certified loss."""
    auto_lirpa = importlib.import_module("auto_LiRPA")
    x, label = workload.inputs()
    inputs = torch.from_numpy(x)
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2).contiguous()
    model = auto_lirpa.BoundedModule(network(workload).eval(), torch.empty_like(inputs))
    ball = auto_lirpa.PerturbationLpNorm(norm=np.inf, eps=workload.eps)
    spec = margins(label) if workload.margins else None
    optimised = METHODS[workload.method] == "CROWN-Optimized"
    if optimised:
        model.set_bound_opts({"optimize_bound_args": {"iteration": 20, "lr_alpha": 0.1}})

    def bounds() -> tuple[torch.Tensor, torch.Tensor | None]:
        bound = functools.partial(
            model.compute_bounds,
            x=(auto_lirpa.BoundedTensor(inputs, ball),),
            C=spec,
            bound_upper=not workload.lower_only,
        )
        known = {}
        if workload.method == "alpha_crown":  # else it optimises the inner bounds as well
            with torch.no_grad():
                bound(method="CROWN")
            known["interm_bounds"] = model.save_intermediate()
        return bound(method=METHODS[workload.method], **known)

    def gradient() -> Any:
        model.zero_grad()
        lower, _ = bounds()
        logits = nn.functional.pad(-lower, (1, 0))
        (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean().backward()
        return model

    if workload.gradient:
        return gradient
    return bounds if optimised else torch.no_grad()(bounds)


def arrays(workload: Workload, result: Any) -> Arrays:
    """The arrays to compare: bounds, or the gradient of the first layer's bias."""
    if workload.gradient:
        bias = next(p for p in result.parameters() if p.ndim == 1)
        return {"gradient": bias.grad.numpy()}
    names = ("lower",) if workload.lower_only else ("lower", "upper")
    return {name: bound.detach().numpy() for name, bound in zip(names, result, strict=False)}


def main() -> None:
    """Build the workload named on the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--checkout", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    use_cores(options.threads)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    use_legacy_exporter()
    sys.path.insert(0, options.checkout)
    workload = named(options.workload, options.quick)

    def prepare() -> tuple[Callable[[], Any], dict[str, float]]:
        start = time.perf_counter()
        run = measured(workload)
        return run, {"trace": time.perf_counter() - start, "compile": 0.0}

    serve(prepare, lambda result: arrays(workload, result))


if __name__ == "__main__":
    main()
