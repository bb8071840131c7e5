"""Writes <name>/full.safetensors beside make_golden.py's files: the gradients of a whole model with two exits.

    .venv-golden/bin/python tests/golden/make_full_golden.py
`tokens` (each predicts the next), `losses` (of the exits, then of the final layer), and under its own name the gradient
of every tensor: d(0.5 * first exit's + second exit's + 0.75 * final layer's mean cross entropy) / d tensor, by
transformers' modules and PyTorch's autograd.
"""
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from make_golden import Exit, trace

EXITS = ["1 mlp after shared own 1", "2 norm after shared shared 1.5"]
WEIGHTS = [0.5, 1.0, 0.75]


def main():
    for name in ["gqa_head_dim", "tied"]:
        folder = pathlib.Path(__file__).parent / name
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        golden = load_file(folder / "golden.safetensors")
        generator = torch.Generator().manual_seed(5)
        exits = [Exit(model, exit_name, generator) for exit_name in EXITS]
        parameters = dict(model.named_parameters())
        for exit_name, exit_ in zip(EXITS, exits):
            for key, p in exit_.own_tensors().items():
                p.data = golden[f"{exit_name}/{key}"].float()
                parameters[key] = p
        tokens = torch.randint(0, model.config.vocab_size, (2, 12), generator=generator)
        streams, branches, logits = trace(model, tokens[:, :-1])
        outputs = [exit_(model, streams, branches) for exit_ in exits] + [logits]
        losses = [F.cross_entropy(out.flatten(0, 1), tokens[:, 1:].flatten()) for out in outputs]
        sum(w * loss for w, loss in zip(WEIGHTS, losses)).backward()
        values = {key: p.grad.contiguous() for key, p in parameters.items()}
        values |= {"tokens": tokens, "losses": torch.stack(losses).detach()}
        save_file(values, folder / "full.safetensors")
        (folder / "full.safetensors").chmod(0o644)
        print(name, [float(loss) for loss in losses])


main()
