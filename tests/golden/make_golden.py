"""Writes <name>/ beside this file: tiny random models, exits of every kind, their logits, and the exits' gradients.

Everything is computed with transformers' own modules (never with ours):
    .venv-golden/bin/python tests/golden/make_golden.py
Weights are rounded to bf16 and stored so, to keep the files small; all arithmetic is f32.
golden.safetensors holds `tokens`, `targets`, `rope.cos`, `rope.sin`, `logits`, and for every exit
`<exit>/<tensor name as in exits.safetensors>`, `<exit>/logits` and, for some models,
`<exit>/<uniform|confidence>/<tensor name>` = d(SCALE * mean token loss) / d tensor.
An exit is called "<layer> <kind> <position> <head> <norm> <temperature>".
"""
import copy
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import LlamaConfig, MistralConfig, Qwen2Config, AutoModelForCausalLM

SIZES = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=False,
             bos_token_id=1, eos_token_id=2)
MODELS = {
    "mha": LlamaConfig(**SIZES | dict(num_key_value_heads=4)),
    "gqa_head_dim": LlamaConfig(**SIZES | dict(head_dim=12)),
    "bias": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "tied": LlamaConfig(**SIZES | dict(tie_word_embeddings=True)),
    "rope_linear": LlamaConfig(**SIZES, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=5000.0)),
    "rope_llama3": LlamaConfig(**SIZES | dict(max_position_embeddings=128), rope_parameters=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, rope_theta=10000.0,
        original_max_position_embeddings=64)),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
}
EXITS = ["1 embedding before shared none 1", "1 embedding after own none 1", "3 embedding after shared own 1",
         "2 norm before own own 1", "2 norm after shared shared 1.5", "1 mlp after shared own 1",
         "2 mlp after own own 2", "1 layer after shared own 1", "2 layer before own own 1"]
WITH_GRADIENTS = ["gqa_head_dim", "bias"]
SCALE = 0.7
BATCH, SEQ = 2, 10


def randomize(module, generator):
    """Wide enough for logits that differ clearly from token to token; exact in bf16."""
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            is_norm = "norm" in name or (p.dim() == 1 and name == "weight")
            value = 1 + 0.2 * noise if is_norm else 0.3 * noise
            p.copy_(value.bfloat16().float())
    return module


def trace(model, tokens):
    """Residual streams by depth, and (post-attention stream, its norm's output) by layer."""
    streams, branches = {}, {}
    hooks = []
    for i, layer in enumerate(model.model.layers):
        hooks.append(layer.register_forward_pre_hook(
            lambda _, args, i=i: streams.__setitem__(i, args[0])))
        hooks.append(layer.post_attention_layernorm.register_forward_hook(
            lambda _, args, out, i=i: branches.__setitem__(i + 1, (args[0], out))))
    hooks.append(model.model.norm.register_forward_pre_hook(
        lambda _, args: streams.__setitem__(len(model.model.layers), args[0])))
    logits = model(tokens, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    return streams, branches, logits


class Exit(torch.nn.Module):
    def __init__(self, model, name, generator):
        super().__init__()
        layer, self.kind, self.position, head, norm, temperature = name.split()
        self.layer_number, self.temperature = int(layer), float(temperature)
        if self.kind == "mlp":
            self.mlp = copy.deepcopy(model.model.layers[0].mlp)
        if self.kind == "layer":
            self.layer = copy.deepcopy(model.model.layers[-1])
        if norm == "own":
            self.norm = copy.deepcopy(model.model.norm)
        if head == "own":
            self.head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
        randomize(self, generator)
        self.requires_grad_(True)
        self.shared = {"norm": model.model.norm if norm == "shared" else None, "head": model.lm_head}

    def own_tensors(self):
        return {f"exits.{self.layer_number}.{name}": p for name, p in self.named_parameters()}

    def forward(self, model, streams, branches):
        if self.kind == "mlp":
            residual, branch = branches[self.layer_number]
            hidden = residual + self.mlp(branch)
        else:
            hidden = streams[self.layer_number - (self.position == "before")]
        if self.kind == "layer":
            seq = hidden.shape[1]
            positions = torch.arange(seq)[None]
            mask = torch.full((seq, seq), float("-inf")).triu(1)[None, None]
            hidden = self.layer(hidden, attention_mask=mask, position_ids=positions,
                                position_embeddings=model.model.rotary_emb(hidden, positions))
        norm = getattr(self, "norm", None) or self.shared["norm"]
        head = getattr(self, "head", None) or self.shared["head"]
        return head(norm(hidden) if norm else hidden) / self.temperature


def gradients(exit_, logits, targets):
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=-100)
    confidence = logits.detach().softmax(-1).amax(-1).flatten()
    count = (targets != -100).sum()
    for name, weights in [("uniform", torch.ones_like(confidence)), ("confidence", confidence)]:
        total = SCALE * (weights * loss).sum() / count
        own = exit_.own_tensors()
        if own:
            for key, value in zip(own, torch.autograd.grad(total, own.values(), retain_graph=True)):
                yield f"{name}/{key}", value


def main():
    folder = pathlib.Path(__file__).parent
    for index, (name, config) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(100 + index)
        config._attn_implementation = "eager"
        model = randomize(AutoModelForCausalLM.from_config(config), generator).requires_grad_(False).eval()
        tokens = torch.randint(0, config.vocab_size, (BATCH, SEQ), generator=generator)
        targets = torch.randint(0, config.vocab_size, (BATCH, SEQ), generator=generator)
        targets[0, 3] = -100
        streams, branches, logits = trace(model, tokens)
        cos, sin = model.model.rotary_emb(streams[0], torch.arange(config.max_position_embeddings)[None])
        golden = {"tokens": tokens, "targets": targets, "logits": logits, "rope.cos": cos[0], "rope.sin": sin[0]}
        for exit_name in EXITS:
            exit_ = Exit(model, exit_name, generator)
            exit_logits = exit_(model, streams, branches)
            golden[f"{exit_name}/logits"] = exit_logits.detach()
            golden |= {f"{exit_name}/{key}": p.detach().bfloat16() for key, p in exit_.own_tensors().items()}
            if name in WITH_GRADIENTS:
                golden |= {f"{exit_name}/{key}": g for key, g in gradients(exit_, exit_logits, targets)}
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        model.bfloat16().save_pretrained(target)
        (target / "generation_config.json").unlink(missing_ok=True)
        save_file({key: value.contiguous() for key, value in golden.items()}, target / "golden.safetensors")
        for file in target.iterdir():
            file.chmod(0o644)
        print(name, "logits std", float(logits.std()))


if __name__ == "__main__":
    main()
