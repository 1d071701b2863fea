#!/usr/bin/env python3
"""Build the training corpus, the held-out texts and the tokenizer of model/tiny.

Usage: python3 make_corpus.py WORK

WORK is a scratch folder. The Debian packages are fetched with apt-get (run `apt-get update` before),
the npm packages with `npm pack`. Needs numpy and tokenizers. Writes

    WORK/tokens.u16.xz   token ids of all training documents, little-endian 16 bit, source after source
    WORK/corpus.json     per source: documents, bytes, tokens, offset; result of the leak check
    WORK/heldout.json    held-out texts: {"sotu": [[name, text], ...], "moby": [...]}
    tokenizer.json, tokenizer_config.json   beside this file
"""

import email
import gzip
import hashlib
import html.parser
import json
import lzma
import re
import struct
import subprocess
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

DEBIAN = [
    "linux-doc-6.1",
    "dict-gcide",
    "dict-foldoc",
    "anarchism",
    "manpages",
    "manpages-dev",
    "python3.11-doc",
    "postgresql-doc-15",
    "debian-handbook",
    "debian-reference-en",
    "r-cran-janeaustenr",
]
NPM = ["datasets-sotu@0.2.3", "datasets-moby-dick@0.2.3", "datasets-spam-assassin@0.2.3"]
EOT = "<|endoftext|>"
VOCAB = 4096
SHINGLE = 13
PUNCTUATION = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."})


def normalize(text: str) -> str:
    """ASCII text by the rule of README.md; the TypeScript side does exactly the same."""
    text = unicodedata.normalize("NFKD", text.translate(PUNCTUATION))
    text = re.sub(r"\r\n?", "\n", text)
    text = re.sub(r"[^\x20-\x7e\n\t]", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip(" \t\n")


def fetch(work: Path) -> None:
    """Download and unpack what is not there yet: WORK/root/PACKAGE and WORK/npm/PACKAGE."""
    (work / "debs").mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        root = work / "root" / name
        if not root.exists():
            subprocess.run(["apt-get", "download", name], cwd=work / "debs", check=True)
            deb = next((work / "debs").glob(f"{name}_*.deb"))
            subprocess.run(["dpkg", "-x", deb, root], check=True)
    for spec in NPM:
        folder = work / "npm" / spec.split("@")[0]
        if not folder.exists():
            folder.mkdir(parents=True)
            subprocess.run(["npm", "pack", "--silent", f"@stdlib/{spec}"], cwd=folder, check=True)
            subprocess.run(["tar", "xzf", next(folder.glob("*.tgz"))], cwd=folder, check=True)


class Stripper(html.parser.HTMLParser):
    """Text of an HTML page: blocks become paragraphs, scripts, styles and the head go."""

    SKIP = frozenset({"script", "style", "head", "nav"})
    BLOCK = frozenset(
        ["p", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr"]
        + ["pre", "blockquote", "section", "hr", "br"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.out: list[str] = []
        self.skip = self.pre = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.skip += tag in self.SKIP
        self.pre += tag == "pre"
        if tag in self.BLOCK:
            self.out.append("\n" if tag in ("br", "tr", "dd") else "\n\n")
        elif tag in ("td", "th"):
            self.out.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.skip = max(0, self.skip - (tag in self.SKIP))
        self.pre = max(0, self.pre - (tag == "pre"))
        if tag in ("p", "div", "pre", "li", "table", "blockquote"):
            self.out.append("\n\n")

    def handle_data(self, data: str) -> None:
        if not self.skip:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def strip_html(page: str) -> str:
    """Readable text of one HTML page."""
    parser = Stripper()
    parser.feed(page)
    parser.close()
    lines = (line.rstrip() for line in "".join(parser.out).split("\n"))
    return "\n".join(line[1:] if line[:1] == " " != line[1:2] else line for line in lines)


def read(path: Path) -> str:
    """A text file, gzipped or not, as UTF-8 with bad bytes dropped."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix in (".gz", ".dz") else data).decode("utf-8", "ignore")


def files(folder: Path, pattern: str) -> list[Path]:
    """Sorted regular files below a folder; links are left out so that nothing comes twice."""
    return [p for p in sorted(folder.rglob(pattern)) if p.is_file() and not p.is_symlink()]


def unwrap(text: str) -> str:
    """Join the hard-wrapped lines of every paragraph and drop its indentation."""
    lines = [line.strip() for line in text.split("\n")]
    return "\n\n".join(" ".join(p.split("\n")) for p in re.split(r"\n\n+", "\n".join(lines)))


def dictionary(path: Path) -> Iterator[str]:
    """A dictd database: no pronunciations, source tags or link braces; 500 paragraphs a document."""
    text = re.sub(r"\[(1913 Webster|PJC|Webster 1913 Suppl\.|WordNet 1\.5)[^\]]*\]", "", read(path))
    text = re.sub(r"[{}]", "", re.sub(r"\\[^\\\n]*\\", "", text))
    paragraphs = [p for p in unwrap(text).split("\n\n") if p]
    for i in range(0, len(paragraphs), 500):
        yield "\n\n".join(paragraphs[i : i + 500])


def man_page(source: str) -> str:
    """Readable text of a man page: roff requests and escapes removed."""
    source = re.sub(r'(?m)^[.\']\\".*\n|^\.[ \t]*\n', "", source)
    source = re.sub(r"(?m)^\.(SH|SS) (.*)$", r"\n\2\n", source)
    source = re.sub(r"(?m)^\.(PP|TP|IP|P|LP|HP)\b.*$", "", source)
    source = re.sub(r"(?m)^\.(B|I|BR|RB|IR|RI|BI|IB|SM|SB) (.*)$", lambda m: man_font(m[1], m[2]), source)
    source = re.sub(r"(?m)^[.'].*\n", "", source)
    source = re.sub(r"\\f.|\\&|\\,|\\/|\\c$", "", source, flags=re.M)
    return source.replace("\\-", "-").replace("\\(aq", "'").replace("\\e", "\\").replace("\\ ", " ")


def man_font(macro: str, args: str) -> str:
    """Arguments of a font macro: one-letter fonts keep spaces between them, alternating ones do not."""
    words = [a or b for a, b in re.findall(r'"([^"]*)"|(\S+)', args)]
    return (" " if len(macro) == 1 else "").join(words)


def mail(path: Path) -> str:
    """The text parts of a mail, without headers."""
    parts = []
    for part in email.message_from_bytes(path.read_bytes()).walk():
        if part.get_content_type() in ("text/plain", "text/html"):
            text = (part.get_payload(decode=True) or b"").decode("latin-1")
            parts.append(strip_html(text) if part.get_content_type() == "text/html" else text)
    return "\n\n".join(parts)


def austen(path: Path) -> Iterator[str]:
    """The novels in janeaustenr's R data file: zlib chunks, each one character vector in XDR form."""
    data = path.read_bytes()
    while len(data) > 4:
        stream = zlib.decompressobj()
        raw = stream.decompress(data[4:])
        data = stream.unused_data
        at = raw.find(b"\x00\x00\x00\x10")
        if at < 0:
            continue
        (count,) = struct.unpack_from(">i", raw, at + 4)
        at += 8
        lines = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", raw, at + 4)
            at += 8
            lines.append(raw[at : at + max(size, 0)].decode("utf-8", "ignore"))
            at += max(size, 0)
        yield unwrap("\n".join(lines))


def speeches(work: Path) -> list[tuple[str, str]]:
    """(name, text) of every State of the Union speech, in order of file name; the name starts with the year."""
    data = work / "npm/datasets-sotu/package/data"
    return [(p.stem, json.loads(p.read_text())["text"]) for p in sorted(data.glob("*.json")) if p.stem[:4].isdigit()]


def chapters(work: Path) -> list[tuple[str, str]]:
    """(name, text) of the 139 parts of Moby Dick, in the order of the dataset's file_list.json."""
    data = work / "npm/datasets-moby-dick/package/data"
    names = [name.removesuffix(".txt") for name in json.loads((data / "file_list.json").read_text())]
    return [(name, json.loads((data / f"{name}.json").read_text())["text"]) for name in names]


def held_out(work: Path) -> dict[str, list[tuple[str, str]]]:
    """Speeches of years ending in 7; parts 7, 14, 21, ... of Moby Dick, counted from 1."""
    return {
        "sotu": [(n, normalize(t)) for n, t in speeches(work) if n[3] == "7"],
        "moby": [(n, normalize(t)) for i, (n, t) in enumerate(chapters(work), 1) if i % 7 == 0],
    }


def training_sources(work: Path) -> Iterator[tuple[str, list[str]]]:
    """(source name, documents) of everything that may be trained on."""
    root = work / "root"
    doc = "usr/share/doc"
    yield "sotu", [t for n, t in speeches(work) if n[3] != "7"]
    yield "moby", [t for i, (_, t) in enumerate(chapters(work), 1) if i % 7]
    yield "austen", list(austen(root / "r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"))
    yield "anarchism", [strip_html(read(p)) for p in files(root / "anarchism" / doc / "anarchism/html", "*.html")]
    for name in ("gcide", "foldoc"):
        yield name, list(dictionary(root / f"dict-{name}/usr/share/dictd/{name}.dict.dz"))
    ham = work / "npm/datasets-spam-assassin/package/data"
    yield "ham", [mail(p) for f in ("easy-ham-1", "easy-ham-2", "hard-ham-1") for p in files(ham / f, "*.txt")]
    handbook = root / "debian-handbook" / doc / "debian-handbook/html/en-US"
    reference = root / "debian-reference-en/usr/share/debian-reference"
    yield "debian", [strip_html(read(p)) for p in files(handbook, "*.html") + files(reference, "ch*.html")]
    yield "postgresql", [strip_html(read(p)) for p in files(root / "postgresql-doc-15" / doc, "*.html")]
    yield "python", [read(p) for p in files(root / "python3.11-doc" / doc, "*.rst.txt")]
    man = [p for d in ("manpages", "manpages-dev") for p in files(root / d / "usr/share/man", "*.gz")]
    yield "man", [man_page(read(p)) for p in man]
    linux = root / "linux-doc-6.1" / doc / "linux-doc-6.1/Documentation"
    kernel = [p for e in ("*.rst.gz", "*.txt.gz") for p in files(linux, e) if "translations" not in p.parts]
    yield "linux", [read(p) for p in kernel]


class Leaks:
    """Hashed 13-word shingles of the held-out texts, and the removal of every sentence that holds one."""

    def __init__(self, texts: list[str]) -> None:
        self.words: dict[str, int] = {}
        self.powers = np.array([pow(0x9E3779B97F4A7C15, k, 1 << 64) for k in range(SHINGLE)], np.uint64)
        self.known = np.unique(np.concatenate([self.shingles(t)[0] for t in texts]))

    def shingles(self, text: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Hash of each run of 13 lower-cased words, and the place of each word."""
        spans, ids = [], []
        for m in re.finditer(r"[a-z0-9']+", text.lower()):
            word = m[0]
            if word not in self.words:
                digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
                self.words[word] = int.from_bytes(digest, "little")
            spans.append(m.span())
            ids.append(self.words[word])
        n = max(0, len(ids) - SHINGLE + 1)
        array = np.array(ids, np.uint64)
        total = np.zeros(n, np.uint64)
        for k in range(SHINGLE):
            total += array[k : k + n] * self.powers[k]
        return total, spans

    def clean(self, text: str) -> tuple[str, int, int]:
        """(text without the sentences that hold a known shingle, shingles found, characters removed)."""
        found = 0
        size = len(text)
        while True:
            hashes, spans = self.shingles(text)
            place = np.searchsorted(self.known, hashes).clip(max=len(self.known) - 1)
            hits = np.flatnonzero(self.known[place] == hashes)
            if not len(hits):
                return normalize(text), found, size - len(text)
            found += len(hits)
            parts, last = [], 0
            for i in hits:
                if spans[i + SHINGLE - 1][1] <= last:
                    continue
                ends = [m.end() for m in re.finditer(r"[.!?\n]", text[last : spans[i][0]])]
                parts.append(text[last : last + ends[-1]].strip() if ends else "")
                stop = re.compile(r"[.!?\n]").search(text, spans[i + SHINGLE - 1][1])
                last = stop.end() if stop else len(text)
            text = "\n\n".join(p for p in [*parts, text[last:].strip()] if p)


def train_tokenizer(sources: dict[str, list[str]]) -> Tokenizer:
    """Byte-level BPE on all prose (speeches twice) and on a tenth of the paragraphs of the rest."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    sample = [*sources["sotu"], *sources["sotu"]]
    for name, documents in sources.items():
        if name in ("moby", "austen", "anarchism"):
            sample += documents
        elif name != "sotu":
            sample += ["\n\n".join(d.split("\n\n")[::10]) for d in documents]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[EOT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{EOT} $A", pair=f"{EOT} $A {EOT} $B", special_tokens=[(EOT, 0)]
    )
    return tokenizer


def pieces(document: str, size: int = 50_000) -> list[str]:
    """A long document cut before paragraph breaks, so that the tokenizer works on small strings."""
    out, start = [], 0
    while len(document) - start > size and (cut := document.find("\n\n", start + size)) > 0:
        out.append(document[start:cut])
        start = cut
    return [*out, document[start:]]


def main() -> None:
    """Build everything; one line a source."""
    work = Path(sys.argv[1]).resolve()
    here = Path(__file__).resolve().parent
    fetch(work)
    held = held_out(work)
    (work / "heldout.json").write_text(json.dumps(held))
    leaks = Leaks([text for part in held.values() for _, text in part])

    sources: dict[str, list[str]] = {}
    report: dict[str, dict[str, int]] = {}
    seen: set[bytes] = set()
    for name, documents in training_sources(work):
        kept, found, cut, touched = [], 0, 0, 0
        for document in map(normalize, documents):
            digest = hashlib.sha256(document.encode()).digest()
            if len(document) < 200 or digest in seen:
                continue
            seen.add(digest)
            text, hits, removed = leaks.clean(document)
            found, cut, touched = found + hits, cut + removed, touched + (hits > 0)
            if text:
                kept.append(text)
        sources[name] = kept
        report[name] = {
            "documents": len(kept),
            "bytes": sum(map(len, kept)),
            "leaked_shingles": found,
            "documents_cut": touched,
            "bytes_cut": cut,
        }
        print(name, report[name], flush=True)

    tokenizer = train_tokenizer(sources)
    tokenizer.save(str(here / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": EOT,
        "eos_token": EOT,
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    (here / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    stream, offset = [], 0
    for name, documents in sources.items():
        cut = [pieces(d) for d in documents]
        encoded = iter(tokenizer.encode_batch([p for d in cut for p in d], add_special_tokens=False))
        part = [np.array(([0] if i == 0 else []) + next(encoded).ids, "<u2") for d in cut for i in range(len(d))]
        tokens = np.concatenate(part)
        report[name] |= {"offset": offset, "tokens": len(tokens)}
        offset += len(tokens)
        stream.append(tokens)
        print(name, len(tokens), "tokens", round(report[name]["bytes"] / len(tokens), 2), "bytes a token", flush=True)
    (work / "tokens.u16.xz").write_bytes(lzma.compress(np.concatenate(stream).tobytes(), preset=1))
    (work / "corpus.json").write_text(
        json.dumps({"heldout_shingles": len(leaks.known), "sources": report}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
