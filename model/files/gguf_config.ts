/**
 * The configuration that a GGUF file's metadata describes, as a Hugging Face `config.json`.
 *
 * @module
 */
import { type GgufFile, headerJson, readGgufTensor } from "./gguf_file.ts";
import type { Rope } from "../llama/config.ts";
import { clipText, quoteText } from "../host/quote_text.ts";
import { ropeFrequencies } from "../llama/rope.ts";

/** Architectures by their name in GGUF. Mistral's files say llama, and have no sliding window. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
};

/** Settings that would change the arithmetic, each with the values that don't. */
const NEUTRAL: Readonly<Record<string, readonly unknown[]>> = {
  expert_count: [undefined, 0],
  "rope.scaling.type": [undefined, "none"],
  "rope.scaling.attn_factor": [undefined, 0, 1],
  "attention.sliding_window": [undefined],
  "attention.causal": [undefined, true],
  "attention.scale": [undefined, 0],
  "attention.clamp_kqv": [undefined, 0],
  "attention.max_alibi_bias": [undefined, 0],
  logit_scale: [undefined, 0, 1],
  embedding_scale: [undefined, 0, 1],
  residual_scale: [undefined, 0, 1],
};

/** Llama 3's published scaling, but for its factor: what rope_freqs is compared with, since it holds only the result. */
const LLAMA3 = { lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 };

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
  for (const [key, known] of Object.entries(NEUTRAL)) refuse(name, `${family}.${key}`, value(key), known);
  // Without a type a factor is linear scaling, under its older name too.
  for (const key of value("rope.scaling.type") === "none" ? [] : ["rope.scaling.factor", "rope.scale_linear"]) {
    refuse(name, `${family}.${key}`, value(key), [undefined, 0, 1]);
  }
  const heads = value("attention.head_count");
  const headSize = value("attention.key_length") ?? Number(value("embedding_length")) / Number(heads);
  for (const key of ["rope.dimension_count", "attention.value_length"]) {
    refuse(name, `${family}.${key}`, value(key), [undefined, headSize]);
  }
  refuseSomeBiases(file, family);
  const theta = value("rope.freq_base") ?? 10000;
  const scaling = await findScaling(file, Number(theta), Number(headSize));
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

function refuse(file: string, key: string, value: unknown, known: readonly unknown[]): void {
  if (!known.includes(value)) {
    throw new SyntaxError(
      `${file}: ${key} is ${quoteText(value)}, must be ${known.map((item) => item ?? "absent").join(" or ")}`,
    );
  }
}

/** Settings of Llama 3's scaling that give the divisors of frequencies in rope_freqs. @throws {SyntaxError} for others */
async function findScaling(file: GgufFile, theta: number, headSize: number): Promise<object | undefined> {
  const tensor = file.tensors.get("rope_freqs.weight");
  if (!tensor) return undefined;
  const divisors = await readGgufTensor(tensor);
  const factor = divisors.reduce((max, divisor) => Math.max(max, divisor), 0);
  const llama3: Rope["llama3"] = { ...LLAMA3, factor };
  const [plain, scaled] = [ropeFrequencies({ theta }, headSize), ropeFrequencies({ theta, llama3 }, headSize)];
  const fits = divisors.length === plain.length &&
    divisors.every((divisor, i) => Math.abs(scaled[i] * divisor / plain[i] - 1) < 1e-4);
  if (!fits) throw new SyntaxError(`${file.source.name}: rope_freqs.weight is not Llama 3's scaling, must be`);
  return {
    rope_type: "llama3",
    factor,
    low_freq_factor: LLAMA3.lowFrequencyFactor,
    high_freq_factor: LLAMA3.highFrequencyFactor,
    original_max_position_embeddings: LLAMA3.originalContext,
  };
}
