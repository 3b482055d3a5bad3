"""Weights with an optimizer, and checkpoints of them."""

from pathlib import Path

import torch

from distilora.training.checkpoint import Best, State, save_checkpoint

Trained = dict[str, torch.nn.Parameter]


def fresh(seed: int = 0) -> tuple[Trained, torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    trained = {
        name: torch.nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in (("block.0.lora_A.weight", (4, 8)), ("block.0.lora_B.weight", (8, 4)), ("head.bias", (2,)))
    }
    groups = [{"params": list(trained.values())[:2], "peak": 0.1}, {"params": list(trained.values())[2:], "peak": 0.2}]
    return trained, torch.optim.AdamW(groups, lr=0.01)


def step(trained: Trained, optimizer: torch.optim.AdamW) -> None:
    loss = sum(((p - torch.rand_like(p)) ** 2).sum() for p in trained.values())
    torch.as_tensor(loss).backward()
    optimizer.step()
    optimizer.zero_grad()


def save(folder: Path, update: int, fingerprint: str = "ours") -> tuple[Trained, torch.optim.AdamW, State, Best]:
    trained, optimizer = fresh(update)
    for _ in range(3):
        step(trained, optimizer)
    best = Best({name: p.detach() + 1 for name, p in trained.items()}, torch.randn(5, 2))
    state = State(fingerprint, update, update - 1, 0.25, update - 1, 1, 2.5, [{"update": 1, "loss": 0.1 + 0.2}])
    save_checkpoint(folder, state, trained, optimizer, best)
    return trained, optimizer, state, best
