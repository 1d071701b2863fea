import { readModel } from "../../../model/files/checkpoint.ts";
import { forward, logitsOf } from "../../../model/llama/forward.ts";
import { matmulPlain } from "../llama/matmul_plain.ts";
import { openModel } from "../../../model/load.ts";
import { assertClose, assertEquals, assertRejects } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { inDirectory } from "../../temporary.ts";

const PLAIN = await Deno.readFile(new URL("../../fixtures/gguf/llama_spm.gguf", import.meta.url));
const EXPECTED = await readJson<Record<string, { tokens: number[]; positions: number[]; logits: number[][] }>>(
  "gguf/expected.json",
);

const [U32, F32, TEXT, ARRAY] = [4, 6, 8, 9];

/** Little-endian bytes: texts with their length, [bytes of a number, number], or "f" and an f32. */
function bytes(...parts: (string | readonly [4 | 8, number] | readonly ["f", number])[]): number[] {
  return parts.flatMap((part) => {
    if (typeof part === "string") return [...bytes([8, part.length]), ...new TextEncoder().encode(part)];
    if (part[0] === "f") return [...new Uint8Array(Float32Array.of(part[1]).buffer)];
    return [...new Uint8Array(BigUint64Array.of(BigInt(part[1])).buffer)].slice(0, part[0]);
  });
}

/** A setting of the header. */
const number = (key: string, value: number) => bytes(key, [4, U32], [4, value]);
const float = (key: string, value: number) => bytes(key, [4, F32], ["f", value]);
const text = (key: string, value: string) => bytes(key, [4, TEXT], value);
const array = (key: string, ...values: number[]) =>
  bytes(key, [4, ARRAY], [4, U32], [8, values.length], ...values.map((value) => [4, value] as const));

/** A tensor of 32 elements, which lies where the first one does. */
const tensor = (name: string, type: number) => bytes(name, [4, 1], [8, 32], [4, type], [8, 0]);

function positionOf(text: string): number {
  const wanted = bytes(text);
  return PLAIN.findIndex((_, at) => wanted.every((byte, i) => PLAIN[at + i] === byte));
}

/** The file with more settings and tensors; a setting of the same name is called otherwise. */
function changed(settings: readonly number[][], tensors: readonly number[][] = [], renamed: readonly string[] = []) {
  const added = settings.flat().length + tensors.flat().length;
  // Tensors' bytes begin at a multiple of 32 and must go on doing so.
  const empty = bytes("filler", [4, 8], "").length;
  const filler = bytes("filler", [4, 8], "x".repeat((64 - (added + empty) % 32) % 32));
  const file = PLAIN.slice();
  for (const key of renamed) file[positionOf(key) + 8 + key.length - 1] = 0x5f;
  const view = new DataView(file.buffer);
  view.setBigUint64(8, view.getBigUint64(8, true) + BigInt(tensors.length), true);
  view.setBigUint64(16, view.getBigUint64(16, true) + BigInt(settings.length + 1), true);
  const at = positionOf("token_embd.weight");
  return Uint8Array.from([
    ...file.subarray(0, 24),
    ...[...settings, filler].flat(),
    ...file.subarray(24, at),
    ...tensors.flat(),
    ...file.subarray(at),
  ]);
}

/** Compares logits with those of transformers for the unchanged file (tests/fixtures/make_gguf.py). */
async function assertSame(path: string): Promise<void> {
  using checkpoint = await openModel(path);
  const { tokens, positions: [position], logits: [logits] } = EXPECTED["llama_spm.gguf"] ?? EXPECTED.llama_spm;
  const model = await readModel(checkpoint);
  const { hidden } = forward(model, [{ tokens: Uint32Array.from(tokens) }], matmulPlain);
  const width = checkpoint.config.hidden;
  assertClose(logitsOf(model, hidden.subarray(position * width, (position + 1) * width), matmulPlain), logits, 2e-4);
}

Deno.test("openModel: a GGUF file by any name, with arrays of equal numbers and tensors that change nothing", () =>
  inDirectory(async (directory) => {
    const plain = await openModel(new URL("../../fixtures/gguf/llama_spm.gguf", import.meta.url).pathname);
    const { keyValueHeads, intermediate, layers } = plain.config;
    plain[Symbol.dispose]();
    const keys = ["llama.attention.head_count_kv", "llama.feed_forward_length"];
    const arrays = [keyValueHeads, intermediate].map((size, i) => array(keys[i], ...Array(layers).fill(size)));
    const neutral = [float("llama.rope.scaling.factor", 1), number("llama.expert_count", 0)];
    const tensors = [tensor("blk.0.note.weight", 26), tensor("counts", 27)];
    for (const name of ["UPPER.GGUF", "blob", "model.safetensors"]) {
      await Deno.writeFile(`${directory}/${name}`, changed([...arrays, ...neutral], tensors, keys));
      await assertSame(`${directory}/${name}`);
    }
    await Deno.writeFile(`${directory}/blob`, changed([array(keys[0], keyValueHeads, 1)], [], [keys[0]]));
    await assertRejects(() => openModel(`${directory}/blob`), SyntaxError, "num_key_value_heads");
  }));

Deno.test("openModel: what would change a GGUF file's arithmetic is refused by name", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/f.gguf`;
    const settings: [number[], string][] = [
      [text("llama.rope.scaling.type", "ntk"), 'rope.scaling.type is "ntk", must be none or linear or yarn'],
      [float("llama.rope.scaling.attn_factor", 2), "rope.scaling.attn_factor is 2, must be 1"],
      [float("llama.rope.scaling.yarn_ext_factor", 2), "llama.rope.scaling.yarn_ext_factor is 2, must be absent or 1"],
      [number("general.alignment", 24), "general.alignment is 24, must be a power of two"],
      [float("llama.logit_scale", 2), "llama.logit_scale is 2"],
      [number("llama.attention.value_length", 7), "llama.attention.value_length is 7"],
    ];
    for (const [setting, message] of settings) {
      await Deno.writeFile(path, changed([setting]));
      await assertRejects(() => openModel(path), SyntaxError, `${path}: ${message}`);
    }
    const counts = bytes("llama.context_length", [4, ARRAY], [4, 10], [8, 2], [8, 64], [8, 128]);
    await Deno.writeFile(path, changed([counts], [], ["llama.context_length"]));
    await assertRejects(() => openModel(path), SyntaxError, "max_position_embeddings is [64,128], must be an integer");
    const tensors: [number[], string][] = [
      [tensor("blk.0.ffn_gate.bias", 0), "model.layers.0.mlp.gate_proj.bias"],
      [tensor("blk.0.ffn_gate.scale", 0), "blk.0.ffn_gate.scale"],
      [tensor("output.bias", 0), "output.bias"],
      [tensor("blk.1.attn_norm_2.weight", 16), "blk.1.attn_norm_2.weight"],
      [tensor("blk.0.attn_q.bias", 0), "a bias for q of attention, must have one for all of q, k, v, output or none"],
    ];
    for (const [added, message] of tensors) {
      await Deno.writeFile(path, changed([], [added]));
      await assertRejects(() => openModel(path), SyntaxError, `${path} has ${message}`);
    }
    await Deno.writeFile(path, changed([], [tensor("output.weight", 16)]));
    await assertRejects(() => openModel(path), SyntaxError, "tensor output.weight");
  }));

Deno.test("openModel: a GGUF file's linear and YaRN scalings, with llama.cpp's attention factor times the paper's", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/f.gguf`;
    const opened = async (...settings: number[][]) => {
      await Deno.writeFile(path, changed(settings));
      using checkpoint = await openModel(path);
      return checkpoint.config;
    };
    const linear = { type: "linear", factor: 4 } as const;
    const factor = float("llama.rope.scaling.factor", 4);
    assertEquals((await opened(factor)).rope.scaling, linear);
    assertEquals((await opened(float("llama.rope.scale_linear", 4))).rope.scaling, linear);
    assertEquals((await opened(text("llama.rope.scaling.type", "linear"), factor)).rope.scaling, linear);
    assertEquals((await opened(text("llama.rope.scaling.type", "none"), factor)).rope.scaling, undefined);
    const yarn = [
      text("llama.rope.scaling.type", "yarn"),
      factor,
      number("llama.rope.scaling.original_context_length", 64),
    ];
    const { rope: { scaling }, context } = await opened(...yarn);
    const attentionFactor = 1 + 0.1 * Math.log(4);
    const usual = {
      type: "yarn" as const,
      factor: 4,
      fastTurns: 32,
      slowTurns: 1,
      truncate: true,
      originalContext: 64,
      attentionFactor,
    };
    assertEquals([scaling, context], [usual, 256]);
    const half = await opened(...yarn, float("llama.rope.scaling.attn_factor", 0.5));
    assertEquals(half.rope.scaling, { ...usual, attentionFactor: attentionFactor / 2 });
    await Deno.writeFile(path, changed([], [tensor("rope_factors_long.weight", 0)]));
    await assertRejects(() => openModel(path), SyntaxError, "no tensor rope_factors_short.weight");
  }));
