import { fillFragments, FRAGMENT } from "../../experiments/fill_fragments.ts";
import { EXPERIMENTS } from "../../experiments/registry.ts";
import { readAllResults } from "../../experiments/render.ts";
import { RESULTS_ROOT } from "../../experiments/run.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../assert.ts";
import { makeResult } from "./make_result.ts";

const ROOT = new URL("../../", import.meta.url);

/** Hand-written pages. */
const PAGES = ["README.md", "CONTRIBUTING.md", ...docs()];

function docs(): string[] {
  return Array.from(Deno.readDirSync(new URL("docs", ROOT)), ({ name }) => `docs/${name}`).sort();
}

const read = (path: string) => Deno.readTextFile(new URL(path, ROOT));

/** Numbers that README may say by itself: what the paper claims, what the format fixes, names. */
const KNOWN_NUMBERS: Readonly<Record<string, string>> = {
  "2.85": "the paper's bits a weight, our budget",
  "2": "bits of most weights",
  "4": "bits of refined groups",
  "16": "bits of outliers; channels of a group, rows of a tile",
  "8": "groups of a block; bits of a byte",
  "128": "channels of a block",
  "0": "where the zero of a group lies; an exit code",
  "1": "group of a tile; an exit code",
  "2311.16442": "the paper's number",
  "200": "NVIDIA H200",
  "7": "Llama-2 7B",
  "13": "million parameters of the embedded model",
};

Deno.test("README: every number comes from a result file, the paper or the format", async () => {
  const own = (await read("README.md"))
    .replace(FRAGMENT, "")
    .replace(/```[\s\S]*?```/g, "")
    .replace(/`[^`]*`/g, "")
    .replace(/<!--[\s\S]*?-->/g, "")
    .replace(/\]\([^)]*\)/g, "]")
    .replace(/Llama-2|SmolLM2-135M|f16|2-bit|4-bit|16-bit|CITATION/g, "");
  const unknown = Array.from(own.matchAll(/\d+(?:[.,]\d+)*/g), ([number]) => number)
    .filter((number) => !Object.hasOwn(KNOWN_NUMBERS, number));
  assertEquals(unknown, []);
  assertEquals(own.match(/\d\s*(?:x|times|%|points|tokens|[mu]?s|[KMG]i?B|seconds|minutes|hours)\b/g), null);
});

Deno.test("README: has the table of claims and numbers from both kinds of device", async () => {
  const keys = Array.from((await read("README.md")).matchAll(FRAGMENT), ([, , key]) => key);
  assert(keys.includes("headline"));
  assert(keys.some((key) => key.startsWith("software/")) && keys.some((key) => key.startsWith("nvidia-h200/")));
});

Deno.test("results: no share is below 0 or above 1", async () => {
  for (const [place, results] of await readAllResults(RESULTS_ROOT)) {
    for (const { id, columns, rows } of results.values()) {
      for (const { key } of columns.filter(({ unit }) => unit === "share")) {
        const outside = rows.map((row) => Number(row[key] ?? 0)).filter((share) => !(share >= 0 && share <= 1));
        assertEquals(outside, [], `${place}/${id}: ${key}`);
      }
    }
  }
});

Deno.test("pages: every relative link leads to a file, every anchor to a heading", async () => {
  for (const path of PAGES) {
    const text = (await read(path)).replace(/```[\s\S]*?```/g, "");
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const url = new URL(target, new URL(path, ROOT));
      const file = url.pathname.slice(ROOT.pathname.length);
      const found = await Deno.stat(new URL(file, ROOT)).catch(() => undefined);
      assert(found, `${path} links to ${target}, which isn't there`);
      if (url.hash) {
        assert(anchorsOf(await read(file)).includes(url.hash), `${path} links to ${target}, no such heading`);
      }
    }
  }
});

/** Anchors as GitHub makes them. */
function anchorsOf(page: string): string[] {
  return Array.from(
    page.matchAll(/^#+ (.*)$/gm),
    ([, heading]) => `#${heading.toLowerCase().replace(/[^\w\- ]/g, "").replaceAll(" ", "-")}`,
  );
}

Deno.test("docs/method.md: names every file with a Choice of ours, and every experiment", async () => {
  const page = await read("docs/method.md");
  let choices = 0;
  for (const path of ["quant", "kernels", "model", "experiments"].flatMap(sourcesBelow)) {
    if (!(await read(path)).includes("Choice:")) continue;
    choices++;
    assertStringIncludes(page, `\`${path}\``);
  }
  assert(choices > 0);
  for (const { id } of EXPERIMENTS) assertStringIncludes(page, `**${id}**`);
});

/** Paths of the sources in a folder and in those below it. */
function sourcesBelow(folder: string): string[] {
  return Array.from(Deno.readDirSync(new URL(folder, ROOT)), ({ name, isDirectory }) => {
    const path = `${folder}/${name}`;
    return isDirectory ? sourcesBelow(path) : /\.(ts|wgsl)$/.test(name) ? [path] : [];
  }).flat();
}

const RESULTS = new Map([
  ["gpu", new Map([["made_up", makeResult()]])],
  ["software", new Map([["bits", makeResult({ id: "bits" })]])],
  ["gpu/model", new Map([["bits", makeResult({ id: "bits" })]])],
]);

Deno.test("fillFragments: cells to three digits and parts of verdicts; the rest of the page stays", () => {
  const fill = (key: string) => fillFragments("p.md", `a <!-- results: ${key} -->old<!-- /results --> b`, RESULTS);
  const filled = (key: string, value: string) => `a <!-- results: ${key} -->${value}<!-- /results --> b`;
  for (
    const [key, value] of [
      ["gpu/made_up | rtn2 | bits", "3.13"],
      ["gpu/made_up | fp16 | time", "12.5"],
      ["gpu/made_up | measured", "3.13"],
      ["software/bits | verdict", "not reproduced"],
      ["gpu/model/bits | verdict", "not reproduced"],
    ]
  ) {
    assertEquals(fill(key), filled(key, value));
    assertEquals(fillFragments("p.md", fill(key), RESULTS), fill(key));
  }
  assertEquals(fillFragments("p.md", "no fragments", RESULTS), "no fragments");
});

Deno.test("fillFragments: names the page, the fragment and what is wanted", () => {
  const cases = [
    ["phone/made_up | rtn2 | bits", "no result phone/made_up, must be <device>/<id> or <device>/<model>/<id>"],
    ["gpu/made_up | rtn3 | bits", "row is rtn3, must be one of fp16, rtn2"],
    ["gpu/made_up | rtn2 | time", "column is time, must be one with a value in rtn2"],
    ["gpu/made_up | rtn2", "column is undefined"],
  ];
  for (const [key, message] of cases) {
    const page = `<!-- results: ${key} --><!-- /results -->`;
    const error = assertThrows(() => fillFragments("p.md", page, RESULTS), RangeError, message);
    assertStringIncludes(error.message, `p.md: fragment "${key}"`);
  }
});

Deno.test("fillFragments: the headline has a row a claim, measured devices first", () => {
  const { verdict } = makeResult();
  const unmeasured = makeResult({ id: "bits", verdict: { ...verdict, measured: null, status: "not measured" } });
  const byDevice = new Map([
    ["a", new Map([["bits", unmeasured]])],
    ["b", new Map([["bits", makeResult({ id: "bits" })]])],
  ]);
  const page = fillFragments("p.md", "<!-- results: headline -->\n<!-- /results -->", byDevice);
  const rows = page.split("\n").filter((line) => line.startsWith("|")).slice(2);
  // The paper's claims, without those of ours.
  assertEquals(rows.length, 9);
  assertEquals(rows[0].split("|").map((cell) => cell.trim()).slice(2, -1), [
    "2.85",
    "3.13 (b)",
    "bits",
    EXPERIMENTS[0].differs,
    "[not reproduced](results/b/bits.md)",
  ]);
});

Deno.test("fillFragments: the headline has timings of each GPU side by side, all else of one device", () => {
  const timed = EXPERIMENTS.find(({ needsGpu, isOurs }) => needsGpu && !isOurs)!;
  const results = (measured: number) =>
    new Map(["bits", timed.id].map((id) => {
      const result = makeResult({ id });
      return [id, { ...result, verdict: { ...result.verdict, measured } }];
    }));
  const byDevice = new Map([["h100", results(2)], ["h200", results(3)]]);
  const page = fillFragments("p.md", "<!-- results: headline -->\n<!-- /results -->", byDevice);
  assertStringIncludes(page, "2 (h100); 3 (h200)");
  assertStringIncludes(
    page,
    `[not reproduced](results/h100/${timed.id}.md); [not reproduced](results/h200/${timed.id}.md)`,
  );
  assert(!page.includes("results/h200/bits.md"));
});

Deno.test("fillFragments: the headline names a real model first and the embedded one beside it", () => {
  const { verdict } = makeResult();
  const real = makeResult({ id: "bits", verdict: { ...verdict, measured: 2.5, status: "reproduced" } });
  const byPlace = new Map([
    ["a", new Map([["bits", makeResult({ id: "bits" })]])],
    ["a/big", new Map([["bits", real]])],
  ]);
  const page = fillFragments("p.md", "<!-- results: headline -->\n<!-- /results -->", byPlace);
  assertStringIncludes(page, "2.5 (a/big); 3.13 (a)");
  assertStringIncludes(page, "[reproduced](results/a/big/bits.md); [not reproduced](results/a/bits.md)");
});
