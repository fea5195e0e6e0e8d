"""The ceiling that a training step is held against: what matrix products reach, and what a step's work is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lorasweep.training.model.base_model import LoadedBase
from lorasweep.training.model.target_modules import resolve_target_modules
from lorasweep.training.settings import Hyperparameters

# (m, k, n) of m×k · k×n: MiniLM's own for 32 rows of 32 tokens, BERT-base's, and squares large enough to hide
# all that is not arithmetic.
SIZES = ((1024, 384, 1536), (1024, 1536, 384), (1024, 768, 3072), (2048, 2048, 2048), (4096, 4096, 4096))
GPU_SIZES = (*SIZES, (8192, 8192, 8192), (16384, 8192, 8192))
# For each size: long enough to be the rate that a step of some seconds could keep up.
SECONDS = 0.25


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class GemmRate:
    """The fastest product's rate, in FLOP/s, and its size."""

    rate: float
    size: tuple[int, int, int]

    def __str__(self) -> str:
        unit, name = (1e12, "TFLOP/s") if self.rate >= 1e13 else (1e9, "GFLOP/s")
        return f"{self.rate / unit:,.0f} {name} ({'×'.join(str(side) for side in self.size)})"


def gemm_rate(device: torch.device, dtype: torch.dtype) -> GemmRate:
    """The greatest of the sizes' rates, each kept up for a quarter of a second."""
    sizes = GPU_SIZES if device.type == "cuda" else SIZES
    return max((_rate(size, device, dtype) for size in sizes), key=lambda measured: measured.rate)


def _rate(size: tuple[int, int, int], device: torch.device, dtype: torch.dtype) -> GemmRate:
    m, k, n = size
    left = torch.randn(m, k, device=device).to(dtype)
    right = torch.randn(n, k, device=device).to(dtype).t()  # as a linear layer holds its weight
    product = torch.empty(m, n, device=device, dtype=dtype)
    torch.mm(left, right, out=product)
    wait(device)
    # A GPU is given enough at once that its launches are hidden.
    at_once = 50 if device.type == "cuda" else 1
    done, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        for _ in range(at_once):
            torch.mm(left, right, out=product)
        wait(device)
        done += at_once
    return GemmRate(2.0 * m * k * n * done / seconds, size)


@dataclass(frozen=True)
class StepWork:
    """The nominal work of a LoRA step, in FLOPs.

    A frozen weight costs a product forward and one for the gradient by its input: 4·N a token. Attention's two
    products cost 4·T·d a token and layer forward and twice that backward. An adapter's pair of matrices is
    multiplied forward, by the input and by the weights: 6·r·(d_in + d_out).

    Attributes:
        weights: N, of the encoder's linear layers.
        sides: sum of d_in + d_out over the adapted layers.
        width, layers, rank: d, L and r.
    """

    weights: int
    sides: int
    width: int
    layers: int
    rank: int

    @classmethod
    def of(cls, loaded: LoadedBase, hyperparameters: Hyperparameters) -> StepWork:
        """The work for a base model and an adapter's settings."""

        def linears(target_modules: str) -> list[nn.Linear]:
            names = resolve_target_modules(loaded.model, loaded.base.model_type, target_modules)
            modules = [loaded.model.get_submodule(name) for name in names]
            return [module for module in modules if isinstance(module, nn.Linear)]

        every, adapted = linears("all-linear"), linears(hyperparameters.target_modules)
        config: Any = loaded.model.config
        return cls(
            weights=sum(layer.in_features * layer.out_features for layer in every),
            sides=sum(layer.in_features + layer.out_features for layer in adapted),
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            rank=hyperparameters.rank,
        )

    def flops(self, shapes: Sequence[tuple[int, int]]) -> float:
        """Of batches of (rows, tokens), padding counted as what it costs: as tokens like others."""
        return float(sum(rows * tokens * self.per_token(tokens) for rows, tokens in shapes))

    def per_token(self, tokens: int) -> int:
        """Of one token in a row of so many."""
        frozen = 4 * self.weights + 12 * tokens * self.width * self.layers
        return frozen + 6 * self.rank * self.sides
