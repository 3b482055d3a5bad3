"""The Transformers model as torch.onnx writes it: python -m bench.inference.plain FOLDER FILE"""

import sys
import warnings

import torch
from transformers import AutoModelForSequenceClassification


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


warnings.simplefilter("ignore")
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1], attn_implementation="eager").eval()
ids = torch.ones(3, 12, dtype=torch.int64)
sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=512)}
with torch.inference_mode():
    program = torch.onnx.export(
        Logits(model).eval(), (ids, torch.ones_like(ids)), input_names=["input_ids", "attention_mask"],
        output_names=["logits"], dynamo=True, dynamic_shapes=(sizes, sizes), opset_version=20, verbose=False,
    )  # fmt: skip
program.save(sys.argv[2], external_data=False)
