#!/usr/bin/env python3
"""Train the embedded checkpoint on one GPU.

Usage: python3 train.py WORK OUT [--steps 4400]

WORK holds what make_corpus.py wrote. OUT gets the checkpoint in Hugging Face layout and
training_log.jsonl.
"""

import argparse
import json
import lzma
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, MLP, VOCAB = 512, 5, 8, 2, 64, 1024, 4096
THETA, EPS = 10000.0, 1e-5
SHORT, LONG = 512, 4096
TOKENS_A_STEP = 128 * SHORT
PEAK, WARMUP, DECAY, CLIP = 2.5e-3, 300, 0.2, 1.0
LONG_EVERY = 8
# Passes over a source in one epoch, where it is not 1.
MIX = {"linux": 0.6, "gcide": 0.5}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD,
    "vocab_size": VOCAB,
    "max_position_embeddings": LONG,
    "rope_theta": THETA,
    "rope_scaling": None,
    "rms_norm_eps": EPS,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "use_cache": True,
    "torch_dtype": "float16",
}


class Norm(nn.Module):
    """RMSNorm, computed in f32."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + EPS)
        return (y * self.weight).to(x.dtype)


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions (halves rotated, as in Hugging Face)."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = linear(HIDDEN, HEADS * HEAD)
        self.k_proj = linear(HIDDEN, KV_HEADS * HEAD)
        self.v_proj = linear(HIDDEN, KV_HEADS * HEAD)
        self.o_proj = linear(HEADS * HEAD, HIDDEN)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.view(batch, length, -1, HEAD).transpose(1, 2)

        def rotate(y: Tensor) -> Tensor:
            a, b = y.float().chunk(2, -1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(y.dtype)

        q, k, v = rotate(heads(self.q_proj(x))), rotate(heads(self.k_proj(x))), heads(self.v_proj(x))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = linear(HIDDEN, MLP)
        self.up_proj = linear(HIDDEN, MLP)
        self.down_proj = linear(MLP, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = Norm()
        self.self_attn = Attention()
        self.post_attention_layernorm = Norm()
        self.mlp = Mlp()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    """Embedding, layers and last norm; holds the names of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = Norm()


def head_loss(x: Tensor, embedding: Tensor, labels: Tensor, reduction: str) -> Tensor:
    """Cross entropy of the tied output head."""
    logits = F.linear(x, embedding).float()
    return F.cross_entropy(logits.view(-1, VOCAB), labels.view(-1), reduction=reduction)


class Llama(nn.Module):
    """Llama for training: windows of text in, cross entropy out. Every window gets token 0 in front."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Trunk()
        angles = torch.arange(LONG)[:, None] * THETA ** (-torch.arange(0, HEAD, 2) / HEAD)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.head = head_loss
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = math.sqrt(2 * LAYERS) if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(p, std=0.02 / scale)

    def compile_parts(self) -> None:
        """Compile one layer (its code serves all) and the head."""
        for layer in self.model.layers:
            layer.compile(dynamic=False)
        self.head = torch.compile(head_loss, dynamic=False)

    def forward(self, text: Tensor, reduction: str = "mean", low: bool = True) -> Tensor:
        length = text.shape[1]
        inputs = torch.cat((torch.zeros_like(text[:, :1]), text[:, :-1]), 1)
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            x = self.model.embed_tokens(inputs)
            x = x.bfloat16() if low else x
            for layer in self.model.layers:
                x = layer(x, self.cos[:length], self.sin[:length])
            return self.head(self.model.norm(x), self.model.embed_tokens.weight, text, reduction)


def windows(
    sources: dict[str, dict[str, int]], mix: dict[str, float], length: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Batches of window starts without end: each epoch covers each source mix times from random offsets."""
    batch = TOKENS_A_STEP // length
    while True:
        starts = []
        for name, s in sources.items():
            passes = mix.get(name, 1.0)
            while passes > 0:
                first = s["offset"] + rng.integers(length)
                run = np.arange(first, s["offset"] + s["tokens"] - length, length)
                starts.append(rng.permutation(run)[: math.ceil(len(run) * min(1.0, passes))])
                passes -= 1
        epoch = rng.permutation(np.concatenate(starts))
        for i in range(0, len(epoch) - batch + 1, batch):
            yield epoch[i : i + batch]


def held_out_windows(work: Path, tokenizer: Tokenizer) -> dict[str, tuple[Tensor, int]]:
    """Per held-out set: whole windows of 511 tokens of its documents joined by blank lines, and their bytes."""
    result = {}
    for name, documents in json.loads((work / "heldout.json").read_text()).items():
        ids = tokenizer.encode("\n\n".join(t for _, t in documents), add_special_tokens=False).ids
        ids = ids[: len(ids) // (SHORT - 1) * (SHORT - 1)]
        size = len(tokenizer.decode(ids).encode())
        result[name] = (torch.tensor(ids, device="cuda").view(-1, SHORT - 1), size)
    return result


@torch.no_grad()
def bits_per_byte(model: Llama, held: dict[str, tuple[Tensor, int]], low: bool) -> dict[str, float]:
    """Bits per byte of each held-out set; low means bf16."""
    result = {}
    for name, (text, size) in held.items():
        pad = torch.zeros(-len(text) % 128, SHORT - 1, dtype=torch.long, device="cuda")
        total = sum(
            model(part, "none", low).view(len(part), -1)[: max(0, len(text) - i)].double().sum()
            for i, part in zip(range(0, len(text), 128), torch.cat((text, pad)).split(128), strict=False)
        )
        result[name] = round(float(total) / math.log(2) / size, 5)
    return result


def store(model: Llama, out: Path) -> None:
    """Write the weights in f16."""
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    bad = [k for k, v in weights.items() if not v.isfinite().all()]
    if bad:
        raise SystemExit(f"not finite in f16: {bad}")
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Train, log, store."""
    begin = time.monotonic()
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4400)
    args = parser.parse_args()
    here = Path(__file__).resolve().parent
    args.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(here / name, args.out)
    (args.out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    (args.out / "generation_config.json").write_text('{\n  "bos_token_id": 0,\n  "eos_token_id": 0\n}\n')
    log = (args.out / "training_log.jsonl").open("w")

    def note(**row: object) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    torch.backends.cuda.matmul.allow_tf32 = False
    tokens = np.frombuffer(lzma.decompress((args.work / "tokens.u16.xz").read_bytes()), "<u2")
    tokens = torch.from_numpy(tokens.astype(np.int32)).cuda()
    sources = json.loads((args.work / "corpus.json").read_text())["sources"]
    held = held_out_windows(args.work, Tokenizer.from_file(str(here / "tokenizer.json")))
    model = Llama().cuda()
    model.compile_parts()
    decayed = [p for p in model.parameters() if p.dim() == 2]
    plain = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=1e-8, fused=True)
    batches = {length: windows(sources, MIX, length, rng) for length in (SHORT, LONG)}
    note(
        parameters=sum(p.numel() for p in model.parameters()),
        training_tokens=len(tokens),
        setup_seconds=round(time.monotonic() - begin, 1),
        torch=torch.__version__,
        gpu=torch.cuda.get_device_name(),
    )

    losses: list[torch.Tensor] = []
    for step in range(1, args.steps + 1):
        length = SHORT if step % LONG_EVERY else LONG
        rate = PEAK * min(step / WARMUP, (args.steps + 1 - step) / max(1, args.steps - WARMUP), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.from_numpy(next(batches[length])).cuda(non_blocking=True)
        text = tokens[starts[:, None] + torch.arange(length, device="cuda")].long()
        loss = model(text)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if step % 100 == 0:
            row = {"step": step, "loss": round(float(torch.stack(losses).mean()), 4), "lr": round(rate, 7)}
            row |= {"norm": round(float(norm), 3), "seconds": round(time.monotonic() - begin, 1)}
            if step % 400 == 0:
                row |= {"bits_per_byte": bits_per_byte(model, held, low=True)}
            note(**row)
            losses = []

    store(model, args.out)
    note(step=step, seconds=round(time.monotonic() - begin, 1), bits_per_byte=bits_per_byte(model, held, low=True))
    check = Llama().cuda()
    check.load_state_dict(model.state_dict())
    whole = bits_per_byte(check, held, low=False)
    check.half().float()
    note(step=step, f32_bits_per_byte=whole, f16_weights_bits_per_byte=bits_per_byte(check, held, low=False))


if __name__ == "__main__":
    main()
