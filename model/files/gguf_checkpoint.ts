// A GGUF file of llama.cpp as a checkpoint: its tensors under Hugging Face's names and in its order of rows.
import { type CarriedTensor, carryBlocks } from "./carried_blocks.ts";
import { type Checkpoint, isIgnorable, refuseMissingTensors, refuseUnusedTensors } from "./checkpoint.ts";
import { architectureOf } from "../llama/architectures.ts";
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
import { ROPE_TENSORS } from "./gguf_rope.ts";
import { type GgufFile, openGgufFile } from "./gguf_file.ts";
import { type GgufTensor, readGgufTensor, refuseUnread } from "./gguf_tensor.ts";
import { describeTokenizer, describeTokenizerSettings } from "./gguf_tokenizer.ts";
import { bytesOf, toF16 } from "./numbers.ts";
import { clipText } from "../host/quote_text.ts";
import { release } from "../host/release.ts";
import { checkShape, fusedTensors, neededTensor, readRowsInUnits, reorderHeads, splitRows } from "./tensor_layout.ts";

/** What GGUF calls the parts of a layer. */
export const LAYER_PARTS: Readonly<Record<LinearKind | NormKind, string>> = {
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

/** What it calls tensors that Hugging Face fuses too; `ffn_up` is one of them where a row has gate and up in one tensor. */
const FUSED_PARTS: Readonly<Record<string, string>> = {
  attn_qkv: "self_attn.qkv_proj",
  ffn_up: "mlp.gate_up_proj",
};

/** What it calls the tensors outside layers. */
const OTHER_TENSORS: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Hugging Face's name of a tensor; undefined for one that a model doesn't hold (rope_freqs). */
function huggingFaceName(name: string, { architecture }: ModelConfig): string | undefined {
  const [, layer, part, suffix] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  const fused = Object.hasOwn(FUSED_PARTS, part ?? "") ? FUSED_PARTS[part] : undefined;
  if (fused && architectureOf(architecture).fused?.[fused]) return `model.layers.${layer}.${fused}.${suffix}`;
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
    const checkpoint = describeCheckpoint(file, config, {
      "config.json": configText,
      "tokenizer.json": describeTokenizer(file),
      "tokenizer_config.json": describeTokenizerSettings(file),
    });
    refuseMissingTensors(checkpoint);
    return checkpoint;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

function describeCheckpoint(file: GgufFile, config: ModelConfig, texts: Readonly<Record<string, string>>): Checkpoint {
  const { name: path } = file.source;
  const byName = new Map<string, GgufTensor>();
  for (const tensor of file.tensors.values()) {
    const name = huggingFaceName(tensor.name, config);
    if (name !== undefined) {
      refuseUnread(tensor);
      byName.set(name, tensor);
    } else if (!isIgnorable({ name: tensor.name, dtype: tensor.type.name }) && !ROPE_TENSORS.includes(tensor.name)) {
      throw new SyntaxError(`${path} has ${clipText(tensor.name)}, which ${config.architecture} has no use for`);
    }
  }
  for (const { name, parts } of fusedTensors(config)) {
    const fused = neededTensor(path, byName, name);
    byName.delete(name);
    for (const part of splitRows(path, fused, parts)) byName.set(part.name, part);
  }
  refuseUnusedTensors(path, config, Array.from(byName, ([name, { type }]) => ({ name, dtype: type.name })));
  const tensors = allLayerTensors(config);
  // llama.cpp rotates neighbours where Hugging Face rotates halves, so its converter reorders the rows of q and k in Llama.
  const order = halfSplitOrder(config.rope, config.headSize, config.architecture === "LlamaForCausalLM");
  const find = (name: string) => {
    const tensor = neededTensor(path, byName, name);
    return { tensor, ...(order && tensors.get(name)?.rotates && { order }) };
  };
  const read = async (name: string, shape: readonly number[]) => {
    const { tensor, order } = find(name);
    checkShape(path, tensor, shape);
    return await readReordered(tensor, order);
  };
  const readRows = async (name: string, first: number, count: number) => {
    const { tensor, order } = find(name);
    return await readRowsInUnits(tensor, order?.length ?? 1, first, count, (part) => readReordered(part, order));
  };
  return {
    name: path,
    config,
    files: file.paths,
    tensors: Array.from(byName.keys(), (name) => {
      const { tensor, order } = find(name);
      return tensor.type.decode ? carryBlocks(name, tensor, order) : asTensor(path, name, tensor, read);
    }),
    shapes: new Map(Array.from(byName, ([name, { shape }]) => [name, shape])),
    has: (name) => byName.has(name),
    read,
    readRows,
    readText: (name) => Promise.resolve(Object.hasOwn(texts, name) ? texts[name] : undefined),
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** Reads whole heads of a tensor, or one without heads, the rows of each head in this order. */
async function readReordered(tensor: GgufTensor, order?: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
  const values = await readGgufTensor(tensor);
  if (!order) return values;
  const { buffer } = reorderHeads(bytesOf(values), tensor.shape[0], order);
  release(values);
  return new Float32Array(buffer);
}

/** A tensor of numbers, to be carried into a safetensors file: f32 stays, everything else becomes f16. */
function asTensor(path: string, name: string, { type, shape }: GgufTensor, read: Checkpoint["read"]): CarriedTensor {
  if (type.name === "F32") {
    return { name, dtype: "F32", shape, bytes: async () => bytesOf(new Float32Array(await read(name, shape))) };
  }
  return { name, dtype: "F16", shape, bytes: async () => bytesOf(toF16(`${path}: ${name}`, await read(name, shape))) };
}
