#!/usr/bin/env python3
"""The tuning step as one would write it in plain PyTorch: transformers' backbone without autograd, the exits on its hidden
states, torch's cross entropy on whole logits, one backward over the summed loss, per-exit clipping, AdamW.

peer_tuning_step.py MODEL_FOLDER --steps N [--truncate]     prints one line of JSON: seconds of each step.
--truncate drops the layers behind the last exit, which a careful author would do too.
"""
import argparse
import copy
import json
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--steps", type=int, default=4)
parser.add_argument("--sequences", type=int, default=2)
parser.add_argument("--length", type=int, default=512)
parser.add_argument("--truncate", action="store_true")
arguments = parser.parse_args()

torch.manual_seed(0)
model = LlamaForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).requires_grad_(False)
exits_config = json.load(open(f"{arguments.model}/ee_config.json"))["exits"]
weights = load_file(f"{arguments.model}/exits.safetensors")
if arguments.truncate:
    model.model.layers = model.model.layers[: max(e["layer"] for e in exits_config)]


class MlpExit(nn.Module):
    """A copy of the exit layer's MLP as a branch on the post-attention stream, then norm and the shared head."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.mlp = copy.deepcopy(model.model.layers[layer - 1].mlp)
        self.norm = copy.deepcopy(model.model.norm)
        own = {k.removeprefix(f"exits.{layer}."): v for k, v in weights.items() if k.startswith(f"exits.{layer}.")}
        self.load_state_dict(own)
        self.requires_grad_(True)
        post_norm = model.model.layers[layer - 1].post_attention_layernorm
        post_norm.register_forward_hook(self.capture)

    def capture(self, _, inputs, output):
        self.stream, self.mlp_input = inputs[0], output

    def forward(self):
        return F.linear(self.norm(self.stream + self.mlp(self.mlp_input)), model.lm_head.weight)


exits = nn.ModuleList(MlpExit(e["layer"]) for e in exits_config)
optimizer = torch.optim.AdamW(exits.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.01)
seconds = []
for _ in range(arguments.steps):
    tokens = torch.randint(0, model.config.vocab_size, (arguments.sequences, arguments.length + 1))
    begin = time.perf_counter()
    with torch.no_grad():
        model.model(tokens[:, :-1], use_cache=False)
    loss = sum(F.cross_entropy(exit().flatten(0, 1), tokens[:, 1:].flatten()) for exit in exits)
    loss.backward()
    for exit in exits:
        nn.utils.clip_grad_norm_(exit.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    seconds.append(time.perf_counter() - begin)
print(json.dumps({"seconds": seconds}))
