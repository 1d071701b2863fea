import { evaluateModel, prepareEvaluation } from "../../../model/evaluate/evaluation.ts";
import { loadModel } from "../../../model/load.ts";
import { readC4 } from "../../../model/text/c4.ts";
import { loadCalibrationText, loadText } from "../../../model/text/text.ts";
import { joinTokens } from "../../../model/text/windows.ts";
import { fetchWikitext, readWikitext } from "../../../model/text/wikitext.ts";
import { createCpuScorer } from "../../../model/evaluate/scorer.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";
import { serveHub } from "../hub/fake_hub.ts";

const FOLDER = new URL("../../fixtures/wikitext/", import.meta.url).pathname;

/** GPTQ's protocol on an invented text, by Hugging Face transformers (tests/fixtures/make_wikitext.py). */
const EXPECTED: { window: number; tokens: number[]; perplexity: number } = JSON.parse(
  await Deno.readTextFile(`${FOLDER}expected.json`),
);

Deno.test("wikitext2: tokens, windows and perplexity are those of GPTQ's protocol in transformers", async () => {
  const { model, tokenizer } = await loadModel("tiny");
  for (const file of ["wiki.test.raw", "test.parquet"]) {
    const text = await loadText(`wikitext2:${FOLDER}${file}`);
    assertEquals(Array.from(joinTokens(text, tokenizer)), EXPECTED.tokens);
  }
  const text = await loadText(`wikitext2:${FOLDER}wiki.test.raw`);
  const plan = { windows: 999, windowTokens: EXPECTED.window, choices: 0, seed: 1 };
  const set = prepareEvaluation(text, tokenizer, model.config, plan);
  assertEquals(set.windows.windows.map((window) => window.length), [64, 64, 64]);
  assertEquals(Array.from(set.windows.windows[1]), EXPECTED.tokens.slice(64, 128));
  using pool = createCpuPool();
  const scorer = createCpuScorer(pool);
  await scorer.setModel(model);
  const { perplexity } = await evaluateModel(scorer, set, "alone");
  assertAlmostEquals(perplexity.value / EXPECTED.perplexity, 1, 1e-5);
});

Deno.test("fetchWikitext: takes the test split of the hub's data set into the cache, and from there offline", () =>
  inDirectory(async (cache) => {
    const path = "wikitext-2-raw-v1/test-00000-of-00001.parquet";
    const bytes = await Deno.readFile(`${FOLDER}test.parquet`);
    await using hub = serveHub("datasets/Salesforce/wikitext", new Map([[path, bytes]]));
    const settings = { endpoint: hub.endpoint, cache, offline: false, retryDelayMs: 1, stallMs: 10_000 };
    const file = await fetchWikitext(settings);
    assertEquals(file, `${cache}/datasets--Salesforce--wikitext/snapshots/${hub.commit}/${path}`);
    assertEquals(await readWikitext(file), await readWikitext(`${FOLDER}wiki.test.raw`));
    hub.requests.length = 0;
    assertEquals([await fetchWikitext({ ...settings, offline: true }), hub.requests], [file, []]);
  }));

/** Runs with the environment of a hub. */
async function withHub(endpoint: string, cache: string, offline: string, run: () => Promise<void>): Promise<void> {
  const wanted = { HF_ENDPOINT: endpoint, HF_HUB_CACHE: cache, HF_HUB_OFFLINE: offline };
  const before = Object.keys(wanted).map((name) => [name, Deno.env.get(name)] as const);
  for (const [name, value] of Object.entries(wanted)) Deno.env.set(name, value);
  try {
    await run();
  } finally {
    for (const [name, value] of before) value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value);
  }
}

Deno.test("loadCalibrationText: wikitext2 is its train split, c4 the first pages, from the hub and then from its cache", () =>
  inDirectory(async (cache) => {
    const train = await Deno.readFile(`${FOLDER}test.parquet`);
    await using wikitext = serveHub(
      "datasets/Salesforce/wikitext",
      new Map([["wikitext-2-raw-v1/train-00000-of-00001.parquet", train]]),
    );
    const pages = ["A page.\nOf two lines", "caf\u00e9"].map((text) => `${JSON.stringify({ text, url: "u" })}\n`).join(
      "",
    );
    await using c4 = serveHub(
      "datasets/allenai/c4",
      new Map([["en/c4-validation.00000-of-00008.json.gz", await gzip(pages)]]),
    );
    const words = { name: "wikitext2", documents: [await readWikitext(`${FOLDER}wiki.test.raw`)] };
    const web = { name: "c4", documents: ["A page.\nOf two lines\n\ncaf\u00e9"] };
    await withHub(
      wikitext.endpoint,
      cache,
      "",
      async () => assertEquals(await loadCalibrationText("wikitext2"), words),
    );
    await withHub(c4.endpoint, cache, "", async () => assertEquals(await loadCalibrationText("c4"), web));
    await withHub("http://127.0.0.1:9", cache, "1", async () => {
      assertEquals([await loadCalibrationText("wikitext2"), await loadCalibrationText("c4")], [words, web]);
      const message = "wikitext-2-raw-v1/test-00000-of-00001.parquet is not in the cache";
      await assertRejects(() => loadText("wikitext2"), Error, message);
    });
  }));

Deno.test("loadCalibrationText: without a network one error says so", () =>
  inDirectory((cache) =>
    withHub("http://127.0.0.1:9", cache, "", async () => {
      for (const [name, repo] of [["wikitext2", "Salesforce/wikitext"], ["c4", "allenai/c4"]]) {
        const message = `http://127.0.0.1:9 cannot be reached for the hub's data set ${repo} (`;
        await assertRejects(() => loadCalibrationText(name), Error, message);
      }
    })
  ));

async function gzip(text: string): Promise<Uint8Array<ArrayBuffer>> {
  return await new Response(new Blob([text]).stream().pipeThrough(new CompressionStream("gzip"))).bytes();
}

Deno.test("readC4: long files are read in part, and what is no such file is refused", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/x.json.gz`;
    const page = "word ".repeat(2 ** 19);
    await Deno.writeFile(path, await gzip(`${JSON.stringify({ text: page })}\n`.repeat(6)));
    const { length } = await readC4(path);
    assert(length > 2 ** 22 && length < 6 * page.length, `${length} characters`);
    for (
      const [bytes, message] of [
        [new TextEncoder().encode("no gzip"), "is not compressed by gzip"],
        [(await gzip(`${JSON.stringify({ text: "x" })}\n`.repeat(1000))).slice(0, -9), "is not compressed by gzip"],
        [await gzip("[1\n"), 'has the line "[1", must have objects with a text'],
        [await gzip('{"text": 1}\n'), "must have objects with a text"],
      ] as const
    ) {
      await Deno.writeFile(path, bytes);
      await assertRejects(() => readC4(path), SyntaxError, message);
    }
  }));

Deno.test("readWikitext: a Parquet file that is none is refused", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/x.parquet`, "PAR1 or not");
    await assertRejects(() => readWikitext(`${directory}/x.parquet`), SyntaxError, "is not a Parquet file");
  }));
