"""Muon: momentum whose matrices are made orthogonal, for the kernels of convolutions (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic Newton-Schulz iteration
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Every kernel (out, ...) moves by ``lr`` times an orthogonal matrix (out, rest) times sqrt(max(1, out / rest))."""

    def __init__(self, params: Iterable, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the kernels by their gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                rows = p.shape[0]
                moved = orthogonalize(update.reshape(rows, -1)).view(p.shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(moved.to(p.dtype), alpha=-group["lr"] * max(1.0, rows / (p.numel() / rows)) ** 0.5)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return about the nearest matrix with singular values of 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if turned else x
