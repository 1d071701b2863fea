// The configuration of a Llama-family model, read from a Hugging Face `config.json`.
import { type Architecture, type ArchitectureName, architectureOf, ARCHITECTURES } from "./architectures.ts";
import {
  asJsonObject,
  booleanField,
  type JsonObject,
  numberField,
  parseJsonObject,
  refuseOthers,
} from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";
import { readScaling, type RopeScaling } from "./rope_scaling.ts";

/** Rotary position embedding. */
export interface Rope {
  /** Base of the frequencies. */
  readonly theta: number;
  /** Elements of a head that rotate, an even number; all of them where this is absent. */
  readonly rotatedSize?: number;
  /** How the trained context is stretched, where it is. */
  readonly scaling?: RopeScaling;
}

/** Sizes and constants of a model. */
export interface ModelConfig {
  /** Name in `config.json`. */
  readonly architecture: ArchitectureName;
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
  /** Whether q, k and v have a bias. */
  readonly attentionBias: boolean;
  /** Whether o has a bias. */
  readonly outputBias: boolean;
  /** Whether each head of q and k goes through an RMSNorm before its rotation. */
  readonly queryKeyNorm: boolean;
  /** A token sees itself and the `slidingWindow - 1` tokens before it; all tokens before it where this is absent. */
  readonly slidingWindow?: number;
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
  const row = architectureOf(architecture);
  refuseUnknown(json, "hidden_act", ["silu"]);
  refuseUnknown(json, "mlp_bias", [false]);
  const size = (key: string, fallback?: number) =>
    numberField(json, key, { min: 1, max: 1 << 24, integer: true, ...(fallback !== undefined && { fallback }) });
  const hidden = size("hidden_size");
  const heads = size("num_attention_heads");
  const keyValueHeads = size("num_key_value_heads", row.defaults.keyValueHeads ?? heads);
  const headSize = size("head_dim", row.defaults.headSize ?? hidden / heads);
  if (heads % keyValueHeads !== 0) {
    throw new SyntaxError(`${name}: num_attention_heads is ${heads}, must be a multiple of ${keyValueHeads}`);
  }
  if (headSize % 2 !== 0) throw new SyntaxError(`${name}: head_dim is ${headSize}, must be even`);
  const { attentionBias: biasByDefault } = row.defaults;
  const attentionBias = biasByDefault === undefined
    ? row.bias !== "none"
    : booleanField(json, "attention_bias", biasByDefault);
  const slidingWindow = readSlidingWindow(json, row);
  return {
    architecture,
    vocabulary: size("vocab_size"),
    hidden,
    intermediate: size("intermediate_size"),
    layers: numberField(json, "num_hidden_layers", { min: 1, max: 4096, integer: true }),
    heads,
    keyValueHeads,
    headSize,
    ...readRope(json, headSize, size("max_position_embeddings", 2048), row.defaults),
    normEpsilon: numberField(json, "rms_norm_eps", { min: 0, max: 1, fallback: 1e-6 }),
    tiedHead: booleanField(json, "tie_word_embeddings", false),
    attentionBias,
    outputBias: attentionBias && row.bias === "qkvo",
    queryKeyNorm: row.queryKeyNorm ?? false,
    ...(slidingWindow !== undefined && { slidingWindow }),
  };
}

/** The window of all layers; windows of some layers only (`layer_types`, `use_sliding_window` of Qwen) are refused. */
function readSlidingWindow(json: JsonObject, { slidingWindow, defaults }: Architecture): number | undefined {
  const { name, fields } = json;
  if (!slidingWindow) refuseUnknown(json, "use_sliding_window", [false]);
  const { sliding_window: found = defaults.slidingWindow ?? null } = fields;
  const window = slidingWindow ? found : null;
  const wanted = window === null ? "full_attention" : "sliding_attention";
  const types: unknown[] = Array.isArray(fields.layer_types) ? fields.layer_types : [];
  const other = types.find((type) => type !== wanted);
  if (other !== undefined) throw new SyntaxError(`${name}: layer_types has ${quoteText(other)}, must be ${wanted}`);
  return window === null
    ? undefined
    : numberField({ name, fields: { sliding_window: window } }, "sliding_window", { min: 1, integer: true });
}

function readArchitecture({ name, fields }: JsonObject): ArchitectureName {
  const architecture = Array.isArray(fields.architectures) ? fields.architectures[0] : undefined;
  const known = ARCHITECTURES.find((candidate) => candidate === architecture);
  if (!known) {
    throw new SyntaxError(
      `${name}: architecture ${quoteText(architecture)} is not supported, must be one of ${ARCHITECTURES.join(", ")}`,
    );
  }
  return known;
}

/** Fails for a setting that would change the arithmetic in a way that the forward pass doesn't know. */
function refuseUnknown({ name, fields }: JsonObject, key: string, known: readonly unknown[]): void {
  refuseOthers(name, key, fields[key] ?? known[0], known);
}

/**
 * Reads RoPE settings from both spellings: `rope_theta` + `rope_scaling`, and `rope_parameters` of transformers 5. Of
 * both the former counts, as there, where it isn't empty.
 *
 * @param stated the context by `max_position_embeddings`
 */
function readRope(
  json: JsonObject,
  headSize: number,
  stated: number,
  defaults: Architecture["defaults"],
): Pick<ModelConfig, "rope" | "context"> {
  const { rope_scaling: older, rope_parameters: newer } = json.fields;
  const parameters = [older, newer].find((found) => Object.keys(found ?? {}).length > 0) ?? {};
  const scaling = asJsonObject(`${json.name}: rope scaling`, parameters);
  const found = ["rope_theta", "partial_rotary_factor"].map((key) => [key, scaling.fields[key] ?? json.fields[key]]);
  const either = { name: json.name, fields: Object.fromEntries(found) };
  const theta = numberField(either, "rope_theta", { min: 1, fallback: 10000 });
  const rotated = readRotatedSize(either, headSize, defaults.partialRotary);
  const { context, ...scaled } = readScaling(scaling, {
    theta,
    context: stated,
    rotatedSize: rotated.rotatedSize ?? headSize,
    ...(defaults.originalContext !== undefined && {
      originalContext: numberField(json, "original_max_position_embeddings", {
        min: 2,
        fallback: defaults.originalContext,
      }),
    }),
  });
  return { rope: { theta, ...rotated, ...scaled }, context };
}

/** The part of a head that rotates, cut to whole elements as transformers does. */
function readRotatedSize(
  json: JsonObject,
  headSize: number,
  partialRotary: number | undefined,
): Pick<Rope, "rotatedSize"> {
  if (partialRotary === undefined) refuseUnknown(json, "partial_rotary_factor", [1]);
  const factor = numberField(json, "partial_rotary_factor", { min: 0, max: 1, fallback: partialRotary ?? 1 });
  const rotatedSize = Math.trunc(headSize * factor);
  if (rotatedSize < 2 || rotatedSize % 2 !== 0) {
    throw new SyntaxError(
      `${json.name}: partial_rotary_factor is ${factor}, which rotates ${rotatedSize} of a head's ${headSize} elements, ` +
        "must rotate an even number",
    );
  }
  return rotatedSize === headSize ? {} : { rotatedSize };
}
