/**
 * A GGUF file of llama.cpp as a checkpoint: its tensors under Hugging Face's names and in its order of rows.
 *
 * @module
 */
import { type Checkpoint, refuseUnusedTensors, reorderValues } from "./checkpoint.ts";
import { type ModelConfig, parseConfig } from "../llama/config.ts";
import {
  allLayerTensors,
  LINEAR_KINDS,
  type LinearKind,
  linearName,
  NORM_KINDS,
  type NormKind,
  normName,
} from "../llama/layer.ts";
import { halfSplitOrder } from "../llama/rope.ts";
import { describeConfig } from "./gguf_config.ts";
import { type GgufFile, type GgufTensor, openGgufFile, readGgufTensor } from "./gguf_file.ts";
import { describeTokenizer, describeTokenizerSettings } from "./gguf_tokenizer.ts";
import { bytesOf } from "./numbers.ts";
import type { TensorToWrite } from "./safetensors_writer.ts";

/** What GGUF calls the parts of a layer. */
const LAYER_PARTS: Readonly<Record<LinearKind | NormKind, string>> = {
  attentionNorm: "attn_norm",
  mlpNorm: "ffn_norm",
  q_proj: "attn_q",
  k_proj: "attn_k",
  v_proj: "attn_v",
  o_proj: "attn_output",
  queryNorm: "attn_q_norm",
  keyNorm: "attn_k_norm",
  gate_proj: "ffn_gate",
  up_proj: "ffn_up",
  down_proj: "ffn_down",
};

/** What it calls the tensors outside layers. */
const OTHER_TENSORS: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Hugging Face's name of a tensor; undefined for one that a model doesn't hold (rope_freqs). */
function huggingFaceName(name: string): string | undefined {
  const [, layer, part, suffix] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const linear = LINEAR_KINDS.find((kind) => LAYER_PARTS[kind] === part);
  if (linear) return `${linearName(Number(layer), linear)}.${suffix}`;
  const norm = NORM_KINDS.find((kind) => LAYER_PARTS[kind] === part);
  if (norm && suffix === "weight") return normName(Number(layer), norm);
  return Object.hasOwn(OTHER_TENSORS, name) ? OTHER_TENSORS[name] : undefined;
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
    file.source[Symbol.dispose]();
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
  refuseUnusedTensors(path, config, byName.keys());
  const tensors = allLayerTensors(config);
  // llama.cpp rotates neighbours where Hugging Face rotates halves, so its converter reorders the rows of q and k in Llama.
  const order = config.architecture !== "LlamaForCausalLM"
    ? undefined
    : halfSplitOrder(config.rope, config.headSize, true);
  const read = async (name: string, shape: readonly number[]) => {
    const tensor = byName.get(name);
    if (!tensor) throw new SyntaxError(`${path}: no tensor ${name}`);
    if (tensor.shape.join() !== shape.join()) {
      throw new SyntaxError(
        `${path}: tensor ${tensor.name} has shape [${tensor.shape.join(", ")}], must be [${shape.join(", ")}]`,
      );
    }
    const values = await readGgufTensor(file, tensor);
    return order && tensors.get(name)?.rotates ? reorderValues(values, shape[0], order) : values;
  };
  return {
    name: path,
    config,
    files: [path],
    tensors: Array.from(byName, ([name, { type, shape }]) => asTensor(name, type.name, shape, read)),
    has: (name) => byName.has(name),
    read,
    readText: (name) => Promise.resolve(Object.hasOwn(texts, name) ? texts[name] : undefined),
    [Symbol.dispose]: () => file.source[Symbol.dispose](),
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
