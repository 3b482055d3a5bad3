"""Networks of every family and route, and random rows for them."""

from pathlib import Path

import numpy as np
import torch

from distilora.batching.rows import Rows, rows_of
from distilora.config.schema import AdapterConfig
from distilora.model.build import new_network
from distilora.model.encoders.find import find_encoder
from distilora.model.network import Network
from distilora.tasks.classification import Classification

TASK = Classification(("neg", "pos"), "text", "label")


LENGTHS = (5, 17, 3, 64, 9, 1)


def random_rows(lengths: tuple[int, ...] = LENGTHS) -> Rows:
    rng = np.random.default_rng(0)
    return rows_of([[rng.integers(5, 50, length).tolist()] for length in lengths])


ROUTES = ("blocks", "modules", "padded")  # of model/network.py


def network_of(folder: Path, route: str = "blocks", precision: str = "fp32", **settings: object) -> Network:
    """A network with every trained weight set at random, the same ones whatever the route."""
    network = new_network(
        find_encoder(str(folder)), TASK, AdapterConfig(**({"r": 4, "alpha": 6.0} | settings)), precision=precision,
        device=torch.device("cpu"), dropout=0.0, attention="eager" if route == "padded" else "packed",
    )  # fmt: skip
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.normal_(std=0.2)
    if route == "modules":
        network.__dict__["blocks"] = None
    return network.eval()
