import { evaluateModel, prepareEvaluation } from "../../../model/evaluate/evaluation.ts";
import { loadModel } from "../../../model/load.ts";
import { loadText } from "../../../model/text/text.ts";
import { joinTokens } from "../../../model/text/windows.ts";
import { fetchWikitext, readWikitext } from "../../../model/text/wikitext.ts";
import { createCpuScorer } from "../../../model/evaluate/scorer.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { assertAlmostEquals, assertEquals, assertRejects } from "../../assert.ts";
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

Deno.test("readWikitext: a Parquet file that is none is refused", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/x.parquet`, "PAR1 or not");
    await assertRejects(() => readWikitext(`${directory}/x.parquet`), SyntaxError, "is not a Parquet file");
  }));
