import { createCpuScorer } from "../../model/evaluate/scorer.ts";
import { summarizeWindows } from "../../model/evaluate/score.ts";
import { cpuLogits, type GenerateSummary, loadEngine, openModel, quantizeModel } from "../../mod.ts";
import type { Model } from "../../model/llama/llama.ts";
import { loadModel } from "../../model/load.ts";
import { readPromptFormat } from "../../model/text/chat.ts";
import { createCpuPool } from "../../model/workers/cpu_pool.ts";
import { assert, assertClose, assertEquals } from "../assert.ts";
import { readJson } from "../fixture.ts";
import { inDirectory } from "../temporary.ts";

/** What setup.sh puts there. */
const PATH = new URL("../../.scratch/real/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url).pathname;

/** Python's tokenizers 0.23 and transformers 5.24, on weights that the gguf package decodes (make_real_model.py). */
interface Expected {
  readonly lines: readonly (readonly [line: string, ids: readonly number[]])[];
  readonly chats: readonly {
    readonly messages: readonly { readonly role: string; readonly content: string }[];
    readonly text: string;
    readonly ids: readonly number[];
  }[];
  readonly end: number;
  readonly logits: {
    readonly ids: readonly number[];
    readonly best: readonly number[];
    readonly last: readonly (readonly [token: number, logit: number])[];
  };
  readonly windows: readonly (readonly number[])[];
  readonly loss: number;
  readonly greedy: { readonly ids: readonly number[]; readonly tokens: readonly number[] };
}

const expected = await readJson<Expected>("real_model.json");

/** Perplexity of the windows, by the CPU's workers. */
async function perplexityOf(model: Model): Promise<number> {
  using pool = createCpuPool();
  const scorer = createCpuScorer(pool);
  await scorer.setModel(model);
  const tasks = expected.windows.map((ids, index) => ({
    index,
    tokens: Uint32Array.from(ids),
    reference: "none" as const,
  }));
  return summarizeWindows(await scorer.scoreWindows(tasks)).perplexity.value;
}

Deno.test("a real model: tokens of odd and plain lines are those of Python's tokenizers, with nothing in front", async () => {
  using model = await openModel(PATH);
  assertEquals(model.tokenizer.prefix.length, 0);
  for (const [line, ids] of expected.lines) assertEquals([...model.tokenizer.encode(line)], ids, JSON.stringify(line));
});

Deno.test("a real model: conversations become the text and tokens of transformers, and the end token ends a text", async () => {
  using model = await openModel(PATH);
  const prompts = await readPromptFormat(model, model.tokenizer);
  for (const { messages, text, ids } of expected.chats) {
    assertEquals(prompts.renderChat(messages), text);
    assertEquals([...prompts.encodeChat(messages)], ids);
  }
  assert(prompts.stopTokens.includes(expected.end), `stop tokens are ${prompts.stopTokens}`);
});

Deno.test("a real model: logits on the CPU are those of transformers", async () => {
  using model = await openModel(PATH);
  const { ids, best, last } = expected.logits;
  const logits = await cpuLogits(model, ids);
  assertEquals(logits.map((row) => row.indexOf(Math.max(...row))), best);
  // Both compute in f32 from the same weights and differ in the order of sums: by 4e-5 in logits up to 13.
  assertClose(last.map(([token]) => logits.at(-1)![token]), last.map(([, logit]) => logit), 5e-4);
});

Deno.test("a real model: perplexity on held-out texts is that of transformers within 0.2 %", async () => {
  const value = await perplexityOf((await loadModel(PATH)).model);
  const wanted = Math.exp(expected.loss);
  assert(Math.abs(value / wanted - 1) < 2e-3, `perplexity is ${value}, must be ${wanted}`);
});

Deno.test("a real model: the engine answers with the greedy tokens of transformers and stops at the end token", async () => {
  using engine = await loadEngine(PATH);
  const { messages } = expected.chats[0];
  const generation = engine.generate(messages, { maxTokens: 24, logProbabilities: true });
  const tokens: number[] = [];
  let summary: GenerateSummary | undefined;
  while (!summary) {
    const next = await generation.next();
    if (next.done) summary = next.value;
    else tokens.push(...next.value.tokens);
  }
  assertEquals([...tokens, expected.end], expected.greedy.tokens);
  assertEquals([summary.reason, summary.promptTokens], ["stop token", expected.greedy.ids.length]);
});

Deno.test("a real model: quantized in part it keeps its tokens and most of its perplexity", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    const errors: (readonly [name: string, weighted: number])[] = [];
    const layers: number[] = [];
    await quantizeModel(PATH, path, {
      method: "feedback",
      exclude: /layers\.[1-9]|[qko]_proj|up_proj|gate_proj/,
      calibration: { windows: 2, windowTokens: 256 },
      device: "cpu",
      onMatrix: ({ name, weightedError }) => errors.push([name, weightedError!]),
      onLayer: (finished) => layers.push(finished),
    });
    assertEquals(layers, Array.from({ length: 30 }, (_, i) => i + 1));
    assertEquals(errors.map(([name]) => name), ["model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj"]);
    for (const [name, error] of errors) assert(error > 0 && error < 0.01, `${name}: weighted error is ${error}`);
    // What isn't packed stays in Q8_0 and Q4_1: in f16 the file would have 270 MB.
    assert((await Deno.stat(path)).size < (await Deno.stat(PATH)).size);
    const { tokenizer, model } = await loadModel(path);
    for (const [line, ids] of expected.lines.slice(0, 20)) assertEquals([...tokenizer.encode(line)], ids);
    // Two matrices of 210, in the first layer, from little text: 3.6 % of perplexity on the CPU.
    const lost = await perplexityOf(model) / Math.exp(expected.loss);
    assert(lost > 0.99 && lost < 1.06, `perplexity is ${lost} of the unquantized`);
  }));
