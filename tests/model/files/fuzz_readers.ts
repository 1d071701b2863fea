// Every reader of files that strangers write, and damaged files for it: it must give what its documentation promises, or
// say in one short line, and soon, what is wrong.
import { bytesSource } from "../../../model/files/byte_source.ts";
import { type Checkpoint, readFinite } from "../../../model/files/checkpoint.ts";
import { type CheckpointFolder, INDEX, readCheckpointFolder } from "../../../model/files/checkpoint_folder.ts";
import { openGguf } from "../../../model/files/gguf_checkpoint.ts";
import { WEIGHT_DTYPES } from "../../../model/files/numbers.ts";
import { readPackedCheckpoint } from "../../../model/files/packed_checkpoint.ts";
import { readSafetensorsHeader, readTensorBytes } from "../../../model/files/safetensors.ts";
import { parseConfig } from "../../../model/llama/config.ts";
import { rotationOf } from "../../../model/llama/rope.ts";
import { allLayerTensors } from "../../../model/llama/layer.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { openModel } from "../../../model/load.ts";
import { renderTemplate } from "../../../model/text/template.ts";
import { parseTokenizer, readTokenizer } from "../../../model/text/tokenizer.ts";
import { readWikitext } from "../../../model/text/wikitext.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import type { Random } from "../../../quant/random.ts";
import { assert, assertEquals } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { filesIn } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";
import { mutateBytes, mutateHeader, mutateJson, mutateText } from "./mutate.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

/** A part of every file's name, so that errors can be seen to name it. */
const NAME = "strangers-file";

/** A reader, and one damaged file for it. */
export interface Reader {
  /** What it reads. */
  readonly name: string;
  /** Errors with which it may refuse a file. */
  readonly kinds: readonly string[];
  /** Damages a file, reads it and checks what was read. */
  attempt(random: Random): Promise<void> | void;
}

/** Files of a directory of fixtures. */
async function readFiles(directory: string): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const names = filesIn(`${FIXTURES}${directory}`).filter((name) => !name.startsWith("expected"));
  return new Map(
    await Promise.all(
      names.map(async (name) => [name, await Deno.readFile(`${FIXTURES}${directory}/${name}`)] as const),
    ),
  );
}

/** A checkpoint directory in memory. */
function folderOf(files: ReadonlyMap<string, Uint8Array<ArrayBuffer>>): CheckpointFolder {
  const get = (name: string) => Promise.resolve(files.get(name));
  return {
    name: NAME,
    readText: async (name) => await get(name).then((bytes) => bytes && new TextDecoder().decode(bytes)),
    open: async (name) => await get(name).then((bytes) => bytes && bytesSource(`${NAME}/${name}`, bytes)),
  };
}

/** All that a model computes with; each tensor has the shape that its configuration says. */
async function readAll(checkpoint: Checkpoint): Promise<Map<string, Float32Array>> {
  const { vocabulary, hidden, tiedHead } = checkpoint.config;
  const shapes = new Map(Array.from(allLayerTensors(checkpoint.config), ([name, { shape }]) => [name, shape]));
  shapes.set("model.embed_tokens.weight", [vocabulary, hidden]).set("model.norm.weight", [hidden]);
  if (!tiedHead) shapes.set("lm_head.weight", [vocabulary, hidden]);
  const values = new Map<string, Float32Array>();
  for (const [name, shape] of shapes) {
    const found = await checkpoint.read(name, shape);
    assertEquals(found.length, shape.reduce((size, length) => size * length, 1), name);
    assert(found.every(Number.isFinite), `${name} is not finite`);
    values.set(name, found);
  }
  // As they are carried into another file.
  for (const { name, shape, bytes } of checkpoint.tensors) {
    const { length } = await bytes();
    const elements = shape.reduce((size, length) => size * length, 1);
    assert(elements === 0 ? length === 0 : length > 0, `${name} has ${length} bytes for ${elements} elements`);
  }
  return values;
}

async function safetensors(): Promise<Reader> {
  const bases = await Promise.all(
    ["dtypes.safetensors", "wide_dtypes.safetensors", "llama_tied_gqa/model.safetensors"].map((name) =>
      Deno.readFile(FIXTURES + name)
    ),
  );
  return {
    name: "safetensors",
    kinds: ["SyntaxError"],
    async attempt(random) {
      const base = bases[random.integer(bases.length)];
      const bytes = random.integer(2) === 0 ? mutateBytes(base, random) : mutateHeader(base, random);
      using file = await readSafetensorsHeader(bytesSource(NAME, bytes));
      let end = 0;
      for (const info of file.tensors.values()) {
        const found = await readTensorBytes(file, info);
        assertEquals(found.length, info.sizeBytes);
        assert(info.offset >= end, `${info.name} overlaps`);
        end = info.offset + info.sizeBytes;
        if (!WEIGHT_DTYPES.includes(info.dtype)) continue;
        const values = await readFinite({ file, info });
        assertEquals(values.length, info.shape.reduce((size, length) => size * length, 1));
      }
      assertEquals(end === 0 || end === bytes.length, true);
    },
  };
}

/** A whole model: its tensors are found, taken apart and reordered as its architecture and configuration say. */
async function directory(): Promise<Reader> {
  const bases = await Promise.all(ARCHITECTURES.filter((name) => name !== "llama3_scaled_bias").map(readFiles));
  return {
    name: "directory",
    kinds: ["SyntaxError"],
    async attempt(random) {
      const files = new Map(bases[random.integer(bases.length)]);
      const file = random.integer(8) === 0 ? "config.json" : "model.safetensors";
      const base = files.get(file)!;
      const damage = file === "config.json" ? mutateBytes : mutateHeader;
      files.set(file, damage(base, random));
      using checkpoint = await readCheckpointFolder(folderOf(files));
      await readAll(checkpoint);
    },
  };
}

/** A directory of several shards; what the index leaves as it was must be read as it was. */
async function index(): Promise<Reader> {
  const files = await readFiles("llama3_scaled_bias");
  const wanted = await readAll(await readCheckpointFolder(folderOf(files)));
  const text = new TextDecoder().decode(files.get(INDEX));
  return {
    name: "index",
    kinds: ["SyntaxError"],
    async attempt(random) {
      const changed = random.integer(2) === 0
        ? mutateText(text, random, [
          '"',
          "{",
          "}",
          ":",
          ",",
          "../",
          "\\u0000",
          "model-00001-of-00003.safetensors",
          "1e9",
        ])
        : JSON.stringify(mutateJson(JSON.parse(text), random));
      using checkpoint = await readCheckpointFolder(
        folderOf(new Map([...files, [INDEX, new TextEncoder().encode(changed)]])),
      );
      assertEquals(await readAll(checkpoint), wanted);
    },
  };
}

const ARCHITECTURES = [
  "llama3_scaled_bias",
  "mistral_window",
  "qwen2_tied",
  "qwen3_wide_heads",
  "glm_partial",
  "phi3_fused",
  "llama_linear",
  "qwen2_yarn",
  "phi3_longrope",
];

/** Fields of a configuration and what `config.json` calls them. */
const CONFIG_FIELDS = {
  vocabulary: "vocab_size",
  hidden: "hidden_size",
  intermediate: "intermediate_size",
  layers: "num_hidden_layers",
  heads: "num_attention_heads",
} as const;

async function config(): Promise<Reader> {
  const bases = await Promise.all(
    ARCHITECTURES.map(async (name) => JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}/config.json`))),
  );
  return {
    name: "config",
    kinds: ["SyntaxError"],
    attempt(random) {
      let fields = bases[random.integer(bases.length)];
      for (let k = 0; k <= random.integer(3); k++) fields = mutateJson(fields, random);
      const found = parseConfig(NAME, JSON.stringify(fields));
      const { headSize, heads, keyValueHeads, context, normEpsilon, rope, slidingWindow = 1 } = found;
      for (const [key, name] of Object.entries(CONFIG_FIELDS)) {
        assertEquals(found[key as keyof typeof CONFIG_FIELDS], fields[name], name);
      }
      for (const size of [found.vocabulary, headSize, heads, keyValueHeads, context, slidingWindow, found.layers]) {
        assert(Number.isInteger(size) && size > 0, `${size} is no size`);
      }
      assert(headSize % 2 === 0 && heads % keyValueHeads === 0 && normEpsilon >= 0 && normEpsilon <= 1);
      const { rotatedSize = headSize, theta } = rope;
      assert(theta >= 1 && rotatedSize % 2 === 0 && rotatedSize >= 2 && rotatedSize <= headSize);
      for (const tokens of headSize < 1024 ? [1, context] : []) {
        const { frequencies, attentionFactor } = rotationOf(rope, headSize, tokens);
        assert([...frequencies, attentionFactor].every((value) => value >= 0 && Number.isFinite(value)));
      }
    },
  };
}

/** @param directory where files of this run may lie */
async function packed(directory: string): Promise<Reader> {
  const path = `${directory}/packed.safetensors`;
  using original = await openModel(`${FIXTURES}gguf/llama_spm.gguf`);
  using pool = createCpuPool(1);
  await writePackedFile(cpuDevice(pool), original, packPlan(path));
  const base = await Deno.readFile(path);
  return {
    name: "packed",
    kinds: ["SyntaxError"],
    async attempt(random) {
      const bytes = random.integer(2) === 0 ? mutateBytes(base, random) : mutateHeader(base, random);
      using checkpoint = await readPackedCheckpoint(NAME, bytesSource(NAME, bytes));
      await readAll(checkpoint);
      const tokenizer = await readTokenizer(checkpoint);
      assert(tokenizer.encode("the cat").every((token) => token < tokenizer.vocabulary));
    },
  };
}

async function gguf(directory: string): Promise<Reader> {
  const bases = await Promise.all(
    ["llama_spm", "llama_bpe", "qwen2", "qwen3", "phi3_long"].map((name) =>
      Deno.readFile(`${FIXTURES}gguf/${name}.gguf`)
    ),
  );
  const path = `${directory}/${NAME}.gguf`;
  return {
    name: "GGUF",
    // A weight beyond f16, which is what carries it into another file.
    kinds: ["SyntaxError", "RangeError"],
    async attempt(random) {
      await Deno.writeFile(path, mutateBytes(bases[random.integer(bases.length)], random));
      using checkpoint = await openGguf(path);
      await readAll(checkpoint);
      const tokenizer = await readTokenizer(checkpoint);
      assert(tokenizer.encode("the cat").every((token) => token < tokenizer.vocabulary));
    },
  };
}

async function tokenizer(): Promise<Reader> {
  const { bases, kinds } = await readJson<{
    readonly bases: Readonly<Record<string, { readonly model: object }>>;
    readonly kinds: readonly { readonly base: string; readonly parts: { readonly model?: object } }[];
  }>("tokenizer_kinds.json");
  return {
    name: "tokenizer",
    kinds: ["SyntaxError", "RangeError"],
    attempt(random) {
      const { base, parts } = kinds[random.integer(kinds.length)];
      let definition: unknown = { ...bases[base], ...parts, model: { ...bases[base].model, ...parts.model } };
      for (let k = 0; k <= random.integer(3); k++) definition = mutateJson(definition, random);
      const tokenizer = parseTokenizer(NAME, { definition: JSON.stringify(definition), settings: undefined });
      const tokens = [...tokenizer.prefix, ...tokenizer.encode("Hello w\u00f6rld 12 \ufdfa\ufeff the cat\n")];
      assert(tokens.every((token) => token < tokenizer.vocabulary), tokens.join());
      tokenizer.decode([...tokens, 2 ** 31]);
    },
  };
}

const TEMPLATE_PIECES = [
  "{{",
  "}}",
  "{%",
  "%}",
  "|",
  "(",
  ")",
  "[",
  "'",
  "for x in l",
  "endfor",
  "range(9)",
  "~",
  "\\",
  "\u001b",
  " is ",
  "**",
];

async function template(): Promise<Reader> {
  const { templates, values } = await readJson<{
    readonly templates: readonly (readonly [template: string, text: string | null])[];
    readonly values: Readonly<Record<string, unknown>>;
  }>("templates.json");
  return {
    name: "template",
    kinds: ["SyntaxError"],
    attempt(random) {
      let [template] = templates[random.integer(templates.length)];
      for (let k = 0; k <= random.integer(3); k++) template = mutateText(`${template} `, random, TEMPLATE_PIECES);
      assertEquals(typeof renderTemplate(NAME, template, values), "string");
    },
  };
}

async function parquet(directory: string): Promise<Reader> {
  const base = await Deno.readFile(`${FIXTURES}wikitext/test.parquet`);
  const path = `${directory}/${NAME}.parquet`;
  return {
    name: "Parquet",
    kinds: ["SyntaxError"],
    async attempt(random) {
      await Deno.writeFile(path, mutateBytes(base, random));
      assertEquals(typeof await readWikitext(path), "string");
    },
  };
}

/** All readers, by name; `directory` may be written to while they are used. */
export const READERS: Readonly<Record<string, (directory: string) => Promise<Reader>>> = {
  safetensors,
  directory,
  index,
  config,
  packed,
  gguf,
  tokenizer,
  template,
  parquet,
};

/** The longest that any file may take. */
const LIMIT_MS = 5000;

/** Gives damaged files to a reader. @returns how many were refused */
export async function fuzz({ name, kinds, attempt }: Reader, cases: number, random: Random): Promise<number> {
  let refused = 0;
  for (let i = 0; i < cases; i++) {
    const startMs = performance.now();
    try {
      await attempt(random);
    } catch (error) {
      const { name: kind, message } = error as Error;
      if (!kinds.includes(kind)) throw new Error(`${name}, case ${i}: ${kind}: ${message}`, { cause: error });
      // deno-lint-ignore no-control-regex -- that is what must not be there
      const isLine = message.length <= 300 && !/[\x00-\x1f\x7f-\x9f\u2028\u2029]/.test(message);
      assert(isLine, `${name}, case ${i}: ${message.length} characters: ${JSON.stringify(message.slice(0, 400))}`);
      assert(message.includes(NAME), `${name}, case ${i}: ${message}: of which file?`);
      refused++;
    }
    const tookMs = performance.now() - startMs;
    assert(tookMs < LIMIT_MS, `${name}, case ${i} took ${tookMs} ms`);
  }
  return refused;
}
