/**
 * The configuration that a GGUF file's metadata describes, as a Hugging Face `config.json`.
 *
 * @module
 */
import { type GgufFile, readGgufTensor } from "./gguf_file.ts";
import type { Rope } from "../llama/config.ts";
import { ropeFrequencies } from "../llama/rope.ts";

/** Architectures by their name in GGUF. Mistral's files say llama, and have no sliding window. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
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
      `${name}: general.architecture is ${family}, must be one of ${Object.keys(ARCHITECTURES).join(", ")}`,
    );
  }
  const asNumber = (found: unknown) => typeof found === "bigint" ? Number(found) : found;
  const value = (key: string) => asNumber(metadata[`${family}.${key}`]);
  refuse(name, `${family}.expert_count`, value("expert_count"), [undefined, 0]);
  refuse(name, `${family}.rope.scaling.type`, value("rope.scaling.type"), [undefined, "none"]);
  refuse(name, `${family}.attention.sliding_window`, value("attention.sliding_window"), [undefined]);
  const heads = value("attention.head_count");
  const headSize = value("attention.key_length") ?? Number(value("embedding_length")) / Number(heads);
  refuse(name, `${family}.rope.dimension_count`, value("rope.dimension_count"), [undefined, headSize]);
  const theta = value("rope.freq_base") ?? 10000;
  const scaling = await findScaling(file, Number(theta), Number(headSize));
  return JSON.stringify({
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

function refuse(file: string, key: string, value: unknown, known: readonly unknown[]): void {
  if (!known.includes(value)) {
    throw new SyntaxError(`${file}: ${key} is ${JSON.stringify(value)}, must be ${known.map(String).join(" or ")}`);
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
