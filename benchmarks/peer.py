"""auto_LiRPA's side: ``python -m benchmarks.peer WORKLOAD --checkout PATH``, a worker."""

import argparse
import functools
import importlib
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from .torch_network import network
from .worker import Arrays, Costs, serve, use_cores
from .workloads import (
    AlphaCrown,
    Bounded,
    Crown,
    CrownIbp,
    Ibp,
    Method,
    Perturbed,
    Sides,
    Workload,
    named,
)


def method_name(method: Method) -> str:
    """What auto_LiRPA calls a method."""
    match method:
        case Ibp():
            return "IBP"
        case CrownIbp():
            return "CROWN-IBP"
        case Crown():
            return "CROWN"
        case AlphaCrown():
            return "CROWN-Optimized"


def margins(label: np.ndarray, classes: int) -> torch.Tensor:
    """The specification matrices of the label's margins over the other classes."""
    others = (label[:, None] + np.arange(1, classes)) % classes
    eye = np.eye(classes, dtype=np.float32)
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


def examples(workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, channels first where they are images, and labels."""
    x, label = workload.inputs()
    inputs = torch.from_numpy(x)
    if inputs.ndim == 4:
        inputs = inputs.permute(0, 3, 1, 2).contiguous()
    return inputs, torch.from_numpy(label.astype(np.int64))


def measured(workload: Workload, auto_lirpa: ModuleType) -> Callable[[], Any]:
    """Builds the bounded module; a run computes bounds, or a certified loss and its gradient."""
    if workload.bounded is Bounded.CROSS_ENTROPY:
        return fused_step(workload, auto_lirpa)
    inputs, label = examples(workload)
    model = auto_lirpa.BoundedModule(network(workload).eval(), torch.empty_like(inputs))
    ball = auto_lirpa.PerturbationLpNorm(norm=np.inf, eps=workload.eps)
    spec = None
    if workload.bounded is Bounded.MARGINS:
        spec = margins(label.numpy(), workload.classes)
    optimised = isinstance(workload.method, AlphaCrown)
    if isinstance(workload.method, AlphaCrown):
        steps = {"iteration": workload.method.steps, "lr_alpha": 0.1}
        model.set_bound_opts({"optimize_bound_args": steps})

    def bounds() -> tuple[torch.Tensor | None, torch.Tensor | None]:
        bound = functools.partial(
            model.compute_bounds,
            x=(auto_lirpa.BoundedTensor(inputs, ball),),
            C=spec,
            bound_lower=workload.sides is not Sides.UPPER,
            bound_upper=workload.sides is not Sides.LOWER,
        )
        known = {}
        if workload.method == AlphaCrown():  # else it optimises the inner bounds as well
            with torch.no_grad():
                bound(method="CROWN")
            known["interm_bounds"] = model.save_intermediate()
        return bound(method=method_name(workload.method), **known)

    def step() -> tuple[torch.Tensor, nn.Module]:
        model.zero_grad()
        lower, _ = bounds()
        logits = nn.functional.pad(-lower, (1, 0))
        loss = (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()
        loss.backward()
        return loss, model

    if workload.training:
        return step
    return bounds if optimised else torch.no_grad()(bounds)


def fused_step(workload: Workload, auto_lirpa: ModuleType) -> Callable[[], Any]:
    """Its loss fusion: the sum of exponentials of logits is bounded, its logarithm is the loss.

    As in its training examples, with the largest logit taken out and put back. There, where weights
    are perturbed, coefficients on them are averaged over the batch, and intervals come first.
    """
    inputs, label = examples(workload)
    net = network(workload).eval()
    weights = workload.perturbed is Perturbed.WEIGHTS
    if weights:
        perturb_weights(net, workload, auto_lirpa)
    wrapper = importlib.import_module("auto_LiRPA.wrapper").CrossEntropyWrapper
    exponential = importlib.import_module("auto_LiRPA.bound_ops").BoundExp
    model = auto_lirpa.BoundedModule(
        wrapper(net),
        (torch.empty_like(inputs), label),
        bound_opts={"loss_fusion": True},
    )
    (shifted,) = (node for node in model._modules.values() if isinstance(node, exponential))
    ball = auto_lirpa.PerturbationLpNorm(norm=np.inf, eps=workload.eps)
    bound = functools.partial(
        model.compute_bounds, method=method_name(workload.method), bound_lower=False
    )

    def step() -> tuple[torch.Tensor, nn.Module]:
        model.zero_grad()
        if weights:
            model.compute_bounds(x=(inputs, label), method="IBP")
            _, upper = bound(average_A=True)
        else:
            _, upper = bound(x=(auto_lirpa.BoundedTensor(inputs, ball), label))
        loss = (torch.log(upper) + shifted.max_input).mean()
        loss.backward()
        return loss, model

    return step


def perturb_weights(net: nn.Module, workload: Workload, auto_lirpa: ModuleType) -> None:
    """Puts every weight matrix into a ball of its own."""
    ball = auto_lirpa.PerturbationLpNorm(norm=2, eps=workload.eps)
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = auto_lirpa.BoundedParameter(layer.weight.data, ball)


def arrays(workload: Workload, result: Any) -> Arrays:
    """The arrays to compare: bounds, or a loss and the gradient of the first layer's bias."""
    if not workload.training:
        pairs = zip(("lower", "upper"), result, strict=True)
        return {name: limit.detach().numpy() for name, limit in pairs if limit is not None}
    loss, model = result
    bias = next(p for p in model.parameters() if p.ndim == 1)
    return {"loss": loss.detach().numpy(), "gradient": bias.grad.numpy()}


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
    auto_lirpa = importlib.import_module("auto_LiRPA")
    workload = named(options.workload, options.quick)

    def prepare() -> tuple[Callable[[], Any], Costs]:
        start = time.perf_counter()
        run = measured(workload, auto_lirpa)
        return run, {"trace": time.perf_counter() - start, "compile": 0.0}

    serve(prepare, lambda result: arrays(workload, result))


if __name__ == "__main__":
    main()
