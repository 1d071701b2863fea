import { checkQuantized } from "../../cli/packed_option.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { readPromptFormat } from "../../model/text/chat.ts";
import { openDirectory } from "../../model/files/open_directory.ts";
import { Engine } from "../../model/engine/engine.ts";
import type { EngineWeights } from "../../model/engine/engine_weights.ts";
import { openModel } from "../../model/load.ts";
import { cpuDevice } from "../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../model/quantize/packed_writer.ts";
import { readTokenizer } from "../../model/text/tokenizer.ts";
import { createCpuPool } from "../../model/workers/cpu_pool.ts";
import { assertEquals, assertRejects, assertThrows } from "../assert.ts";
import { packPlan } from "../model/pack_plan.ts";
import { inDirectory } from "../temporary.ts";

/** Prompt format of the embedded model with another tokenizer_config.json. */
async function readPrompts(settings: object) {
  using checkpoint = await openModel("tiny");
  const tokenizer = await readTokenizer(checkpoint);
  const readText = (file: string) =>
    file === "tokenizer_config.json" ? Promise.resolve(JSON.stringify(settings)) : checkpoint.readText(file);
  const config = { ...checkpoint.config, context: 8 };
  return { tokenizer, config, prompts: await readPromptFormat({ ...checkpoint, name: "m", readText }, tokenizer) };
}

const MESSAGES = [{ role: "user", content: "Call me Ishmael." }];

Deno.test("readPromptFormat: of several chat templates the default one counts", async () => {
  const { tokenizer, prompts } = await readPrompts({
    chat_template: [
      { name: "tool_use", template: "tool" },
      { name: "default", template: "{{ messages[0].role }}: {{ messages[0].content }}" },
    ],
  });
  assertEquals(prompts.hasTemplate, true);
  assertEquals(prompts.encodeChat(MESSAGES), tokenizer.encode("user: Call me Ishmael."));
});

const WITHOUT_DEFAULT: readonly (readonly [templates: unknown[], names: string])[] = [
  [[], "none"],
  [[{ name: "tool_use", template: "x" }, { name: "rag", template: "x" }], '"tool_use", "rag"'],
  [[{ name: "default", template: 3 }], '"default"'],
  [[{ template: "x" }], "undefined"],
];

for (const [templates, names] of WITHOUT_DEFAULT) {
  Deno.test(`readPromptFormat: chat templates ${JSON.stringify(templates)} are refused, plain text isn't`, async () => {
    const { prompts } = await readPrompts({ chat_template: templates });
    assertThrows(
      () => prompts.encodeChat(MESSAGES),
      SyntaxError,
      `m: chat_template has ${names}, must have a text with the name "default"`,
    );
    assertEquals(prompts.encodeText("Call me").length > 1, true);
  });
}

Deno.test("Engine.generate: a prompt beyond the model's context is refused by its length, before anything is made", async () => {
  const { tokenizer, config, prompts } = await readPrompts({});
  const engine = new Engine("m", tokenizer, prompts, {} as Gpu, { config } as EngineWeights, false);
  const prompt = "Call me Ishmael. ".repeat(10);
  await assertRejects(
    () => engine.generate(prompt).next(),
    RangeError,
    `the prompt has ${prompts.encodeText(prompt).length} tokens, must have at most the model's context of 8`,
  );
});

const fixture = (name: string) => new URL(`../fixtures/${name}/`, import.meta.url).pathname;

Deno.test("checkQuantized: a packed file of the model passes, one of another is refused by what differs", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    {
      using source = await openDirectory(fixture("llama_tied_gqa"));
      using pool = createCpuPool(1);
      await writePackedFile(cpuDevice(pool), source, packPlan(path));
    }
    await checkQuantized(path, undefined);
    await checkQuantized(path, fixture("llama_tied_gqa"));
    await assertRejects(
      () => checkQuantized(path, "tiny"),
      SyntaxError,
      `--quantized is ${path}, must be packed from --model tiny: its vocabulary is 96, the model's is 4096`,
    );
  }));
