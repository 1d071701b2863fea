/**
 * The configuration of a Llama-family model, read from a Hugging Face `config.json`.
 *
 * @module
 */
import { asJsonObject, booleanField, type JsonObject, numberField, parseJsonObject } from "./json.ts";

/** Architectures that the forward pass implements, as `config.json` names them. */
export const ARCHITECTURES = ["LlamaForCausalLM"] as const;

/** Rotary position embedding: base and, for Llama 3.1 and later, the scaling of low frequencies. */
export interface Rope {
  /** Base of the frequencies. */
  readonly theta: number;
  /** Scaling of Llama 3.1 and later. */
  readonly llama3?: {
    readonly factor: number;
    readonly lowFrequencyFactor: number;
    readonly highFrequencyFactor: number;
    readonly originalContext: number;
  };
}

/** Sizes and constants of a model. */
export interface ModelConfig {
  /** Name in `config.json`. */
  readonly architecture: typeof ARCHITECTURES[number];
  /** Tokens of the vocabulary. */
  readonly vocabulary: number;
  /** Width of the residual stream. */
  readonly hidden: number;
  /** Width of the MLP. */
  readonly intermediate: number;
  /** Transformer layers. */
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; each serves heads / keyValueHeads query heads. */
  readonly keyValueHeads: number;
  /** Elements of a head. */
  readonly headSize: number;
  /** Longest sequence, in tokens. */
  readonly context: number;
  /** Added under RMSNorm's root. */
  readonly normEpsilon: number;
  /** Rotary position embedding. */
  readonly rope: Rope;
  /** Whether lm_head is the embedding. */
  readonly tiedHead: boolean;
  /** Whether q, k, v (and in Llama o) have a bias. */
  readonly attentionBias: boolean;
  /** Token that starts a document. */
  readonly bosToken: number;
}

/**
 * Parses `config.json`.
 *
 * @param name what error messages call the file
 * @throws {SyntaxError} for an unsupported architecture or a field that is missing or out of range
 */
export function parseConfig(name: string, text: string): ModelConfig {
  const json = parseJsonObject(name, text);
  const architecture = readArchitecture(json);
  refuseUnknown(json, "hidden_act", ["silu"]);
  refuseUnknown(json, "mlp_bias", [false]);
  const size = (key: string, fallback?: number) =>
    numberField(json, key, { min: 1, max: 1 << 24, integer: true, ...(fallback !== undefined && { fallback }) });
  const hidden = size("hidden_size");
  const heads = size("num_attention_heads");
  const keyValueHeads = size("num_key_value_heads", heads);
  const headSize = size("head_dim", hidden / heads);
  if (heads % keyValueHeads !== 0) {
    throw new SyntaxError(`${name}: num_attention_heads is ${heads}, must be a multiple of ${keyValueHeads}`);
  }
  if (headSize % 2 !== 0) throw new SyntaxError(`${name}: head_dim is ${headSize}, must be even`);
  const vocabulary = size("vocab_size");
  return {
    architecture,
    vocabulary,
    hidden,
    intermediate: size("intermediate_size"),
    layers: size("num_hidden_layers"),
    heads,
    keyValueHeads,
    headSize,
    context: size("max_position_embeddings", 2048),
    normEpsilon: numberField(json, "rms_norm_eps", { min: 0, max: 1, fallback: 1e-6 }),
    rope: readRope(json),
    tiedHead: booleanField(json, "tie_word_embeddings", false),
    attentionBias: booleanField(json, "attention_bias", false),
    bosToken: numberField(json, "bos_token_id", { min: 0, max: vocabulary - 1, integer: true, fallback: 1 }),
  };
}

function readArchitecture({ name, fields }: JsonObject): ModelConfig["architecture"] {
  const architecture = Array.isArray(fields.architectures) ? fields.architectures[0] : undefined;
  const known = ARCHITECTURES.find((candidate) => candidate === architecture);
  if (!known) {
    throw new SyntaxError(
      `${name}: architecture ${JSON.stringify(architecture)} is not supported, must be one of ${
        ARCHITECTURES.join(", ")
      }`,
    );
  }
  return known;
}

/** Fails for a setting that would change the arithmetic in a way that the forward pass doesn't know. */
function refuseUnknown({ name, fields }: JsonObject, key: string, known: readonly unknown[]): void {
  const value = fields[key] ?? known[0];
  if (!known.includes(value)) {
    throw new SyntaxError(`${name}: ${key} is ${JSON.stringify(value)}, must be ${known.join(" or ")}`);
  }
}

/** Reads RoPE settings from both spellings: `rope_theta` + `rope_scaling`, and `rope_parameters` of transformers 5. */
function readRope(json: JsonObject): Rope {
  const parameters = json.fields.rope_parameters ?? json.fields.rope_scaling ?? {};
  const scaling = asJsonObject(`${json.name}: rope scaling`, parameters);
  const theta = numberField(
    { name: json.name, fields: { rope_theta: scaling.fields.rope_theta ?? json.fields.rope_theta } },
    "rope_theta",
    { min: 1, fallback: 10000 },
  );
  const type = scaling.fields.rope_type ?? scaling.fields.type ?? "default";
  if (type === "default") return { theta };
  if (type !== "llama3") {
    throw new SyntaxError(`${scaling.name}: rope_type is ${JSON.stringify(type)}, must be default or llama3`);
  }
  const positive = (key: string) => numberField(scaling, key, { min: 1e-6 });
  return {
    theta,
    llama3: {
      factor: positive("factor"),
      lowFrequencyFactor: positive("low_freq_factor"),
      highFrequencyFactor: positive("high_freq_factor"),
      originalContext: positive("original_max_position_embeddings"),
    },
  };
}
