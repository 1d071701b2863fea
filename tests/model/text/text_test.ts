import { createHash } from "node:crypto";
import { loadText, normalizeText, TEXT_NAMES } from "../../../model/text/text.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";

/** sha256 of every document, first 16 digits, made by Python from the packages' files (tests/fixtures/make_text.py). */
const HASHES: Record<string, string[]> = JSON.parse(
  await Deno.readTextFile(new URL("../../fixtures/text.json", import.meta.url)),
);

/** Texts that come with the suite. */
const EMBEDDED = TEXT_NAMES.filter((name) => name !== "wikitext2");

const texts = new Map(
  await Promise.all(EMBEDDED.map(async (name) => [name, (await loadText(name)).documents] as const)),
);

const hashOf = (text: string) => createHash("sha256").update(text).digest("hex").slice(0, 16);

for (const name of EMBEDDED) {
  Deno.test(`loadText: ${name} has the documents, in order, that Python reads, by the held-out rule`, () => {
    assertEquals(texts.get(name)!.map(hashOf), HASHES[name]);
  });
}

Deno.test("loadText: the names, and how many documents each has", () => {
  assertEquals([...TEXT_NAMES], ["sotu", "moby", "wikitext2", "calibration", "mix"]);
  // 19 of 139 parts of Moby Dick are held out: 7, 14, ..., 133.
  assertEquals(texts.get("moby")!.length, 19);
  const speeches = 233; // JSON files of the package whose names start with a year
  assertEquals(texts.get("sotu")!.length + texts.get("calibration")!.length, speeches + 120);
  assertEquals(texts.get("mix")!.length, 11); // sources in the table of its README
});

Deno.test("loadText: what is calibrated on shares nothing with what is evaluated", () => {
  const calibration = new Set(texts.get("calibration"));
  const mix = texts.get("mix")!.join("\n");
  for (const name of ["sotu", "moby"] as const) {
    for (const document of texts.get(name)!) {
      assert(!calibration.has(document), document.slice(0, 60));
      const middle = Math.floor(document.length / 2);
      for (const at of [0, middle, document.length - 200]) {
        assert(!mix.includes(document.slice(Math.max(0, at)).slice(0, 200)));
      }
    }
  }
});

Deno.test("loadText: every document of speeches and chapters is normalized ASCII and not empty", () => {
  for (const name of ["sotu", "moby", "calibration"]) {
    for (const document of texts.get(name)!) {
      assert(/^[\x20-\x7e\n\t]+$/.test(document) && document === normalizeText(document));
    }
  }
});

Deno.test("loadText: file:PATH is one document as it stands", async () => {
  const path = await Deno.makeTempFile();
  await Deno.writeTextFile(path, "  caf\u00e9\r\n\n\n\n");
  assertEquals(await loadText(`file:${path}`), { name: `file:${path}`, documents: ["  caf\u00e9\r\n\n\n\n"] });
  await Deno.remove(path);
  await assertRejects(() => loadText(`file:${path}`), Deno.errors.NotFound, path);
});

Deno.test("loadText: an unknown name is refused with the known ones", async () => {
  await assertRejects(
    () => loadText("wikitext"),
    RangeError,
    "text is wikitext, must be one of sotu, moby, wikitext2, calibration, mix, wikitext2:FILE or file:PATH",
  );
});

Deno.test("normalizeText: cases worked by hand", () => {
  const cases: readonly (readonly [input: string, output: string])[] = [
    ["", ""],
    [" \n\t a b \n\n", "a b"],
    ["\u2018a\u2019 \u201cb\u201d c\u2013d\u2014e\u2026", "'a' \"b\" c-d--e..."],
    ["caf\u00e9 nai\u0308ve \u00c5ngstro\u0308m", "cafe naive Angstrom"],
    ["\ufb01n \u00bd \u2163 \u2460 \u3000x", "fin 12 IV 1  x"],
    ["a\u00a0b", "a b"],
    ["a\r\nb\rc\n\rd", "a\nb\nc\n\nd"],
    ["a\n\n\n\n\nb\n\nc", "a\n\nb\n\nc"],
    ["a\n \n\nb", "a\n \n\nb"],
    ["a\n\u200b\n\u6f22\nb", "a\n\nb"],
    ["\u6f22\u5b57\ud83d\ude00\ud800x\x00\x07\x1b\x7f", "x"],
    ["tab\tstays", "tab\tstays"],
    ["\u00b5 \u00df \u00e6 \u00f8", ""],
  ];
  for (const [input, output] of cases) assertEquals(normalizeText(input), output, JSON.stringify(input));
});
