"""What the tiny encoders of the families need, and networks built on them."""

import numpy as np
import torch

from distilora.batching.rows import Rows, rows_of
from distilora.config.schema import AdapterConfig
from distilora.model.build import new_network
from distilora.model.encoders.families import ARCHITECTURES
from distilora.model.encoders.find import Encoder
from distilora.model.network import Network
from distilora.tasks.classification import Classification

CPU = torch.device("cpu")


TASK = Classification(("bad", "fair", "good"), "text", "label")


SETTINGS: dict[str, dict[str, object]] = {
    "roberta": {"pad_token_id": 1},
    "electra": {"embedding_size": 32},
    "modernbert": {
        "local_attention": 8, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3,
    },
    "deberta-v2": {
        "pooler_hidden_size": 32, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
        "position_biased_input": False,
    },
    "mpnet": {"pad_token_id": 1},
}  # fmt: skip


FAMILIES = list(ARCHITECTURES)


def build(encoder: Encoder, **adapter: object) -> Network:
    """A network with an adapter and a head that matter."""
    settings = AdapterConfig(**{"r": 4, **adapter})
    network = new_network(encoder, TASK, settings, precision="fp32", device=CPU, dropout=0.0).eval()
    with torch.no_grad():
        for parameter in network.trained().values():
            parameter.normal_(std=0.2)
    return network


def random_rows(longest: int) -> Rows:
    rng = np.random.default_rng(0)
    return rows_of([[rng.integers(5, 50, length).tolist()] for length in (3, 11, longest, 6)])
