/**
 * A GGUF file of llama.cpp as a checkpoint: its tensors under Hugging Face's names and in its order of rows.
 *
 * @module
 */
import type { Checkpoint } from "./checkpoint.ts";
import { type ModelConfig, parseConfig } from "../llama/config.ts";
import { describeConfig } from "./gguf_config.ts";
import { type GgufFile, type GgufTensor, openGgufFile, readGgufTensor } from "./gguf_file.ts";
import { describeTokenizer, describeTokenizerSettings } from "./gguf_tokenizer.ts";
import { bytesOf } from "./numbers.ts";
import { release } from "../host/release.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** Names of the parts of a layer. */
const LAYER_PARTS: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  ffn_norm: "post_attention_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** Names of the parts outside layers. */
const OTHER_PARTS: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Hugging Face's name of a tensor; undefined for one that a model doesn't hold (rope_freqs). */
function huggingFaceName(name: string): string | undefined {
  const [, layer, part, suffix] = /^(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const parts = layer === undefined ? OTHER_PARTS : LAYER_PARTS;
  if (part === undefined || !Object.hasOwn(parts, part)) return undefined;
  return `${layer === undefined ? "" : `model.layers.${layer}.`}${parts[part]}.${suffix}`;
}

/** Opens a GGUF file as a checkpoint. @throws {SyntaxError} for a file that is malformed or of an unknown kind */
export async function openGguf(path: string): Promise<Checkpoint> {
  const file = await openGgufFile(path);
  try {
    const configText = await describeConfig(file);
    const config = parseConfig(`${path}, as config.json`, configText);
    return describeCheckpoint(file, config, {
      "config.json": configText,
      "tokenizer.json": describeTokenizer(file),
      "tokenizer_config.json": describeTokenizerSettings(file),
    });
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function describeCheckpoint(file: GgufFile, config: ModelConfig, texts: Readonly<Record<string, string>>): Checkpoint {
  const { name: path } = file.source;
  const byName = new Map<string, GgufTensor>();
  for (const tensor of file.tensors.values()) {
    const name = huggingFaceName(tensor.name);
    if (name !== undefined) byName.set(name, tensor);
  }
  const read = async (name: string, shape: readonly number[]) => {
    const tensor = byName.get(name);
    if (!tensor) throw new SyntaxError(`${path}: no tensor ${name}`);
    if (tensor.shape.join() !== shape.join()) {
      throw new SyntaxError(
        `${path}: tensor ${tensor.name} has shape [${tensor.shape.join(", ")}], must be [${shape.join(", ")}]`,
      );
    }
    return restoreRows(config, name, await readGgufTensor(tensor));
  };
  return {
    name: path,
    config,
    files: file.paths,
    tensors: Array.from(byName, ([name, { type, shape }]) => asTensor(name, type.name, shape, read)),
    has: (name) => byName.has(name),
    read,
    readText: (name) => Promise.resolve(Object.hasOwn(texts, name) ? texts[name] : undefined),
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** A tensor to be carried into a safetensors file: f32 stays, everything else becomes f16. */
function asTensor(name: string, type: string, shape: readonly number[], read: Checkpoint["read"]): TensorToWrite {
  if (type === "F32") {
    return {
      name,
      dtype: "F32",
      shape,
      bytes: async () => bytesOf(new Float32Array(await read(name, shape))),
    };
  }
  const toF16 = async () => {
    const halves = Float16Array.from(await read(name, shape));
    if (!halves.every(Number.isFinite)) throw new RangeError(`${name} has weights beyond the range of f16`);
    return bytesOf(halves);
  };
  return { name, dtype: "F16", shape, bytes: toF16 };
}

/**
 * llama.cpp rotates neighbours where Hugging Face rotates halves, so its converter reorders the rows of each head of q and
 * k in Llama: row 2 i + j there is row j half + i here.
 */
function restoreRows(config: ModelConfig, name: string, values: Float32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const [, kind] = /self_attn\.([qk])_proj\.(?:weight|bias)$/.exec(name) ?? [];
  if (config.architecture !== "LlamaForCausalLM" || !kind) return values;
  const { heads, keyValueHeads, headSize } = config;
  const rows = (kind === "q" ? heads : keyValueHeads) * headSize;
  const width = values.length / rows;
  const half = headSize / 2;
  const restored = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const inHead = row % headSize;
    const target = row - inHead + (inHead % 2) * half + (inHead >> 1);
    restored.set(values.subarray(row * width, (row + 1) * width), target * width);
  }
  release(values);
  return restored;
}
