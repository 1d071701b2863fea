// The configuration that a GGUF file's metadata describes, as a Hugging Face `config.json`.
import { type GgufFile, headerJson } from "./gguf_file.ts";
import { describeScaling } from "./gguf_rope.ts";
import { refuseOthers } from "../host/json.ts";
import { clipText } from "../host/quote_text.ts";

/** Architectures by their name in GGUF. Mistral's files say llama, and have no sliding window. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
  phi3: "Phi3ForCausalLM",
};

/** Settings that would change the arithmetic, each with the values that don't. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  expert_count: [undefined, 0],
  "rope.scaling.yarn_ext_factor": [undefined, 1],
  "rope.scaling.yarn_attn_factor": [undefined, 1],
  "rope.scaling.yarn_log_multiplier": [undefined, 0],
  "attention.causal": [undefined, true],
  "attention.scale": [undefined, 0],
  "attention.clamp_kqv": [undefined, 0],
  "attention.max_alibi_bias": [undefined, 0],
  logit_scale: [undefined, 0, 1],
  embedding_scale: [undefined, 0, 1],
  residual_scale: [undefined, 0, 1],
};

/** Builds `config.json`. @throws {SyntaxError} for an architecture or a setting that the forward pass doesn't know */
export async function describeConfig(file: GgufFile): Promise<string> {
  const { metadata, tensors, source: { name } } = file;
  const family = String(metadata["general.architecture"]);
  const architecture = Object.hasOwn(ARCHITECTURES, family) ? ARCHITECTURES[family] : undefined;
  if (!architecture) {
    throw new SyntaxError(
      `${name}: general.architecture is ${clipText(family)}, must be one of ${Object.keys(ARCHITECTURES).join(", ")}`,
    );
  }
  // What may differ from layer to layer is an array in some files, of equal numbers where it doesn't.
  const asNumber = (found: unknown): unknown => {
    if (Array.isArray(found) && found.every((item) => item === found[0])) return asNumber(found[0]);
    return typeof found === "bigint" ? Number(found) : found;
  };
  const value = (key: string) => asNumber(metadata[`${family}.${key}`]);
  for (const [key, known] of Object.entries(NEUTRAL)) refuseOthers(name, `${family}.${key}`, value(key), known);
  const heads = value("attention.head_count");
  const headSize = value("attention.key_length") ?? Number(value("embedding_length")) / Number(heads);
  const rotatedSize = value("rope.dimension_count") ?? headSize;
  const isPhi = architecture === "Phi3ForCausalLM";
  refuseOthers(name, `${family}.attention.value_length`, value("attention.value_length"), [undefined, headSize]);
  if (!isPhi) {
    refuseOthers(name, `${family}.rope.dimension_count`, rotatedSize, [headSize]);
    refuseOthers(name, `${family}.attention.sliding_window`, value("attention.sliding_window"), [undefined]);
  }
  refuseSomeBiases(file, family);
  const theta = value("rope.freq_base") ?? 10000;
  const sizes = { theta: Number(theta), headSize: Number(headSize), rotatedSize: Number(rotatedSize) };
  const scaling = await describeScaling(file, value, sizes);
  return headerJson({
    architectures: [architecture],
    model_type: family,
    vocab_size: tensors.get("token_embd.weight")?.shape[0],
    hidden_size: value("embedding_length"),
    intermediate_size: value("feed_forward_length"),
    num_hidden_layers: value("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: value("attention.head_count_kv") ?? heads,
    head_dim: headSize,
    max_position_embeddings: value("context_length"),
    rms_norm_eps: value("attention.layer_norm_rms_epsilon"),
    rope_theta: theta,
    ...(scaling && { rope_scaling: scaling }),
    ...(isPhi && {
      partial_rotary_factor: sizes.rotatedSize / sizes.headSize,
      original_max_position_embeddings: value("rope.scaling.original_context_length") ?? value("context_length"),
      sliding_window: value("attention.sliding_window") || null,
    }),
    attention_bias: tensors.has("blk.0.attn_q.bias"),
    tie_word_embeddings: !tensors.has("output.weight"),
    bos_token_id: asNumber(metadata["tokenizer.ggml.bos_token_id"]),
    eos_token_id: asNumber(metadata["tokenizer.ggml.eos_token_id"]),
  });
}

/**
 * Each of q, k, v and o may have a bias by itself in llama.cpp, but not in Hugging Face's models.
 *
 * @throws {SyntaxError}
 */
function refuseSomeBiases({ tensors, source }: GgufFile, family: string): void {
  const parts = ["q", "k", "v", ...(family === "qwen2" ? [] : ["output"])];
  const found = parts.filter((part) => tensors.has(`blk.0.attn_${part}.bias`));
  if (found.length === 0 || found.length === parts.length) return;
  throw new SyntaxError(
    `${source.name} has a bias for ${found.join(", ")} of attention, must have one for all of ${
      parts.join(", ")
    } or none`,
  );
}
