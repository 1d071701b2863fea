#!/usr/bin/env python3
"""Bits per byte and perplexity of the stored f16 checkpoint on the held-out texts, with transformers in f32.

Usage: python3 evaluate.py CHECKPOINT WORK

WORK/heldout.json comes from make_corpus.py. The documents of a set are joined by blank lines and cut into
windows of 511 tokens; a rest that fills no window is left out. Each window is run as BOS + 511 tokens, and
all 511 are scored.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW = 512


@torch.no_grad()
def main() -> None:
    """One JSON line a set."""
    checkpoint, work = map(Path, sys.argv[1:3])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).to(device).eval()
    for name, documents in json.loads((work / "heldout.json").read_text()).items():
        text = "\n\n".join(t for _, t in documents)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        windows = torch.tensor(ids[: len(ids) // (WINDOW - 1) * (WINDOW - 1)]).view(-1, WINDOW - 1)
        size = len(tokenizer.decode(windows.flatten().tolist()).encode())
        nats = 0.0
        for part in windows.split(16):
            bos = torch.full((len(part), 1), tokenizer.bos_token_id)
            logits = model(torch.cat((bos, part), 1).to(device)).logits[:, :-1]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), part.flatten().to(device), reduction="none")
            nats += loss.double().sum().item()
        row = {
            "set": name,
            "documents": len(documents),
            "all_tokens": len(ids),
            "windows": len(windows),
            "scored_tokens": windows.numel(),
            "scored_bytes": size,
            "nats_per_token": round(nats / windows.numel(), 6),
            "perplexity": round(math.exp(nats / windows.numel()), 4),
            "bits_per_byte": round(nats / math.log(2) / size, 5),
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
