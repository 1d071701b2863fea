import { OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import { openGpu } from "../../../kernels/gpu/gpu.ts";
import type { Engine } from "../../../model/engine/engine.ts";
import { openModel } from "../../../model/load.ts";
import { readCalibration } from "../../../model/quantize/calibration_text.ts";
import { kindsOfStarts } from "../../../model/quantize/self_starts.ts";
import { takeTurns, writeSelfText } from "../../../model/quantize/self_text.ts";
import { readCachedText, selfTextPath, writeCachedText } from "../../../model/quantize/self_text_cache.ts";
import { quantizeModel } from "../../../model/quantize_file.ts";
import { readPromptFormat } from "../../../model/text/chat.ts";
import { readMix } from "../../../model/text/mix.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { filesIn, inDirectory } from "../../temporary.ts";

const TEMPLATE =
  "<sys>Be kind to what-the-user-says.</sys>{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[model] ";

/** The embedded model's tokenizer, with or without a chat template. */
async function opened(template?: string) {
  using model = await openModel("tiny");
  const { tokenizer, name, readText } = model;
  const read = (file: string) => file === "chat_template.jinja" ? Promise.resolve(template) : readText(file);
  return { tokenizer, prompts: await readPromptFormat({ name, readText: read }, tokenizer) };
}

Deno.test("kindsOfStarts: without a template first words of the mix's paragraphs and single tokens, by turns", async () => {
  const engine = await opened();
  const write = () => Promise.reject(new Error("nothing is asked"));
  const kinds = await kindsOfStarts(engine, { length: 64, count: 5 }, createRandom(1), write);
  assertEquals(kinds.map(({ windows }) => windows), [5, 0]);
  const { prefix, decode } = engine.tokenizer;
  const mix = (await readMix()).map(({ text }) => text).join("\n\n");
  const prompts = await kinds[0].makePrompts(80);
  for (const prompt of prompts.filter((_, i) => i % 2 === 0)) {
    assertEquals([prompt.length, prompt[0]], [prefix.length + 8, prefix[0]]);
    // The last token may be part of a character.
    const start = decode(prompt).replace(/\ufffd+$/, "");
    assert(mix.startsWith(start) || mix.includes(`\n\n${start}`), start);
  }
  const loose = prompts.filter((_, i) => i % 2 === 1);
  assert(loose.every((prompt) => prompt.length === prefix.length + 1 && decode(prompt) !== ""));
  assert(new Set(loose.map((prompt) => prompt[1])).size > 30);
});

Deno.test("kindsOfStarts: with a template half are questions that the model writes where the user speaks, put to it", async () => {
  const engine = await opened(TEMPLATE);
  const { tokenizer } = engine;
  const written = [" Why?  ", "", "How many\nare there", ""];
  const asked: [string[], number][] = [];
  const kinds = await kindsOfStarts(engine, { length: 200, count: 9 }, createRandom(1), (starts, limit) => {
    asked.push([starts.map((start) => tokenizer.decode(start)), limit]);
    return Promise.resolve(written.map((text) => tokenizer.encode(text)));
  });
  assertEquals(kinds.map(({ windows }) => windows), [5, 4]);
  const prompts = await kinds[1].makePrompts(4);
  assertEquals(asked, [[Array(4).fill("<sys>Be kind to what-the-user-says.</sys>[user]"), 50]]);
  const put = (question: string) => `<sys>Be kind to what-the-user-says.</sys>[user] ${question}\n[model] `;
  const questions = ["Why?", "How many\nare there", "Why?", "How many\nare there"];
  assertEquals(prompts.map((prompt) => tokenizer.decode(prompt)), questions.map(put));
  written.fill(" ");
  assertEquals(await kinds[1].makePrompts(4), []);
  const shortWindows = await kindsOfStarts(
    engine,
    { length: 32, count: 9 },
    createRandom(1),
    () => Promise.resolve([]),
  );
  assertEquals(shortWindows.map(({ windows }) => windows), [9, 0]);
});

Deno.test("takeTurns: every list is spread evenly over the whole", () => {
  assertEquals(takeTurns([[..."123456"], [..."ab"], []]).join(""), "12a345b6");
});

Deno.test("readCachedText: gives what was written for the same key, and nothing of what changed since", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.self.json`;
    const key = { sourceSha256: "a", filesSha256: "b", seed: 1, windows: 2, windowTokens: 3 };
    const windows = [Uint32Array.of(1, 2, 3), Uint32Array.of(40, 50, 60)];
    assertEquals(await readCachedText(path, key), undefined);
    await writeCachedText(path, key, windows);
    assertEquals([await readCachedText(path, key), filesIn(directory)], [windows, ["q.self.json"]]);
    for (
      const change of [{ sourceSha256: "c" }, { filesSha256: "c" }, { seed: 2 }, { windows: 3 }, { windowTokens: 4 }]
    ) {
      assertEquals(await readCachedText(path, { ...key, ...change }), undefined);
    }
    const text = await Deno.readTextFile(path);
    for (const bad of ["", "null", "[]", text.slice(0, -9), text.replace("50", "51"), text.replace("[1,2,3]", "7")]) {
      assert(bad !== text);
      await Deno.writeTextFile(path, bad);
      assertEquals(await readCachedText(path, key), undefined, bad);
    }
  }));

Deno.test("self-written text: the same for a seed, kept beside the output, made anew where that is corrupt", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel("tiny");
    const gpu = await openGpu();
    try {
      const path = `${directory}/q`;
      let steps: string[] = [];
      const read = async () => {
        steps = [];
        return await readCalibration(checkpoint, {
          ...{ calibration: "self", windows: 1, windowTokens: 32, seed: 1, path, sourceSha256: "x", gpu },
          ...{ signal: undefined, onProgress: (step: string) => steps.push(step) },
        });
      };
      const first = await read();
      assertEquals(steps.at(-1), "window 1 of 1 of self-written calibration text");
      assertEquals(first.map((window) => [window.length, window[0]]), [[32, checkpoint.tokenizer.prefix[0]]]);
      assertEquals([await read(), steps], [first, []]);
      await Deno.writeTextFile(selfTextPath(path), (await Deno.readTextFile(selfTextPath(path))).replace(/\d+]/, "1]"));
      assertEquals(await read(), first);
      assert(steps.length > 0);
      assertEquals(filesIn(directory), ["q.self.json"]);
    } finally {
      gpu.close();
    }
  }));

Deno.test("quantizeModel: calibrates on self-written text of an earlier run, says so, and ends where it is aborted", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q`;
    const exclude = /layers\.[1-4]|mlp|[qko]_proj/;
    const reason = new Error("enough");
    const calibration = { text: "mix+self", windows: 4, windowTokens: 32 };
    const options = { device: "cpu", exclude, calibration } as const;
    const aborted = quantizeModel("tiny", path, { ...options, signal: AbortSignal.abort(reason) });
    assert(await aborted.catch((error) => error) === reason);
    assertEquals(filesIn(directory), []);
    const used: unknown[] = [];
    await quantizeModel("tiny", path, { ...options, onCalibration: (text) => used.push(text) });
    assertEquals(used, [{ calibration: "mix+self", tokens: 128 }]);
    assertEquals(filesIn(directory), ["q", "q.self.json"]);
    const first = await Deno.readFile(path);
    const steps: string[] = [];
    await quantizeModel("tiny", path, { ...options, onProgress: (_, step) => steps.push(step) });
    assert(!steps.some((step) => step.includes("calibration text")), steps.join(", "));
    assertEquals(await Deno.readFile(path), first);
  }));

Deno.test("self-written text: windows that have no room for a start are refused", async () => {
  using checkpoint = await openModel("tiny");
  const plan = { calibration: "self", windows: 1, windowTokens: 31, seed: 1, path: "nowhere/q", sourceSha256: "x" };
  await assertRejects(
    () => readCalibration(checkpoint, { ...plan, gpu: undefined, signal: undefined, onProgress: () => {} }),
    RangeError,
    "a self-written window has 31 tokens, must have at least 32",
  );
});

Deno.test("writeSelfText: as many texts at once as the device binds and has room for, by halves", async () => {
  using checkpoint = await openModel("tiny");
  const { keyValueHeads, headSize } = checkpoint.config;
  const asked = async (maxStorageBufferBindingSize: number, room: number) => {
    const sequences: number[] = [];
    const createSession = (_: number, count: number) => {
      sequences.push(count);
      return Promise.reject(count > room ? new OutOfMemoryError("no room", 2, 1) : new RangeError("enough"));
    };
    const gpu = { device: { limits: { maxStorageBufferBindingSize } } };
    const engine = { config: checkpoint.config, gpu, createSession } as unknown as Engine;
    await writeSelfText(engine, { length: 200, count: 9, seed: 1 }).catch(() => {});
    return sequences;
  };
  assertEquals(await asked(2 ** 31, 4), [18, 9, 4]);
  assertEquals(await asked(2 ** 31, 0), [18, 9, 4, 2, 1]);
  // Keys of a layer in f16, with room for 256 tokens each.
  assertEquals(await asked(7 * 2 * keyValueHeads * headSize * 256, 9), [7]);
});
