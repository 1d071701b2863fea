// Scalings of rotary position embedding, which stretch the context that a model was trained for, as Hugging Face
// transformers computes them (modeling_rope_utils.py).
import { booleanField, type JsonObject, listField, numberField } from "../host/json.ts";
import { quoteText } from "../host/quote_text.ts";

/** A scaling; those with an `attentionFactor` multiply cosine and sine by it. */
export type RopeScaling =
  /** Positions count as so many fewer: all frequencies are divided. */
  | { readonly type: "linear"; readonly factor: number }
  /**
   * Llama 3.1: wavelengths above originalContext / lowFrequencyFactor are slowed by `factor`, those below
   * originalContext / highFrequencyFactor are kept, those between are blended.
   */
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFrequencyFactor: number;
    readonly highFrequencyFactor: number;
    readonly originalContext: number;
  }
  /**
   * YaRN: pairs that turn more than `fastTurns` times within the original context are kept, those that turn less than
   * `slowTurns` times are slowed by `factor`, those between are blended by their index; with `truncate` whole indices
   * bound the blend.
   */
  | {
    readonly type: "yarn";
    readonly factor: number;
    readonly fastTurns: number;
    readonly slowTurns: number;
    readonly truncate: boolean;
    readonly originalContext: number;
    readonly attentionFactor: number;
  }
  /** LongRoPE: a divisor of each pair's frequency, of one list up to the original context and of another beyond it. */
  | {
    readonly type: "longrope";
    readonly shortFactors: readonly number[];
    readonly longFactors: readonly number[];
    readonly originalContext: number;
    readonly attentionFactor: number;
  };

type Yarn = Extract<RopeScaling, { type: "yarn" }>;
type LongRope = Extract<RopeScaling, { type: "longrope" }>;

/** What a scaling is applied to. */
export interface ScaledRope {
  readonly theta: number;
  readonly rotatedSize: number;
  readonly tokens: number;
}

/** The frequency that a scaling makes of that of a pair. */
export function scaleFrequency(scaling: RopeScaling, frequency: number, pair: number, rope: ScaledRope): number {
  switch (scaling.type) {
    case "linear":
      return frequency / scaling.factor;
    case "llama3": {
      const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling;
      const turns = (originalContext * frequency) / (2 * Math.PI);
      return blend(frequency, factor, (turns - low) / (high - low));
    }
    case "yarn": {
      const [first, last] = blendedPairs(scaling, rope);
      return blend(frequency, scaling.factor, 1 - (pair - first) / (last - first));
    }
    case "longrope": {
      const { shortFactors, longFactors, originalContext } = scaling;
      return frequency / (rope.tokens > originalContext ? longFactors : shortFactors)[pair];
    }
  }
}

/** Between a frequency that is kept and one that is slowed. */
function blend(frequency: number, factor: number, kept: number): number {
  const share = Math.min(1, Math.max(0, kept));
  return share * frequency + ((1 - share) * frequency) / factor;
}

/** Indices of the last pair that YaRN keeps and the first that it slows by the whole factor. */
function blendedPairs(scaling: Yarn, { theta, rotatedSize }: ScaledRope): [number, number] {
  const { fastTurns, slowTurns, truncate, originalContext } = scaling;
  const pairTurning = (turns: number) =>
    (rotatedSize * Math.log(originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const [fast, slow] = [pairTurning(fastTurns), pairTurning(slowTurns)];
  const first = Math.max(truncate ? Math.floor(fast) : fast, 0);
  const last = Math.min(truncate ? Math.ceil(slow) : slow, rotatedSize - 1);
  return [first, first === last ? last + 0.001 : last];
}

/** Longest context that a factor stretches another to. */
const MAX_CONTEXT = 2 ** 24;

/** What a configuration says beside the fields of its scaling. */
export interface ScalingContext {
  readonly theta: number;
  /** `max_position_embeddings`. */
  readonly context: number;
  /** Tokens of the context before it was stretched, where the configuration says it outside the scaling. */
  readonly originalContext?: number;
  readonly rotatedSize: number;
}

/** Names of the scalings that are read. */
const NAMES = ["linear", "dynamic", "llama3", "yarn", "longrope"] as const;

/**
 * Reads a scaling. `dynamic` changes nothing up to `max_position_embeddings`, where sequences end.
 *
 * @returns the scaling and the longest sequence that it allows; no scaling where frequencies are as without one
 * @throws {SyntaxError} for an unknown one, or a field that is missing or out of range
 */
export function readScaling(json: JsonObject, from: ScalingContext): { scaling?: RopeScaling; context: number } {
  const { fields } = json;
  const stated = fields.rope_type ?? fields.type ?? "default";
  // Older files of Phi-3 call it su, or yarn.
  const found = stated === "su" || (stated === "yarn" && fields.long_factor) ? "longrope" : stated;
  const type = NAMES.find((name) => name === found);
  if (!type && found !== "default") {
    throw new SyntaxError(`${json.name}: rope_type is ${quoteText(found)}, must be default, ${NAMES.join(", ")}`);
  }
  const positive = (key: string, fallback?: number) =>
    numberField(json, key, { min: 1e-6, ...(fallback !== undefined && { fallback }) });
  // Logarithms of the original context and of the base are divided by.
  const originalContext = () =>
    from.originalContext ?? numberField(json, "original_max_position_embeddings", { min: 2, fallback: from.context });
  const { context } = from;
  const stretch = (original: number, factor: number) =>
    Math.max(context, Math.min(MAX_CONTEXT, Math.floor(original * factor)));
  switch (type) {
    case "linear": {
      const factor = positive("factor");
      return { scaling: { type, factor }, context: stretch(context, factor) };
    }
    case "llama3":
      return {
        scaling: {
          type,
          factor: positive("factor"),
          lowFrequencyFactor: positive("low_freq_factor"),
          highFrequencyFactor: positive("high_freq_factor"),
          originalContext: originalContext(),
        },
        context,
      };
    case "yarn": {
      if (from.theta === 1) throw new SyntaxError(`${json.name}: rope_theta is 1, must be above 1 for yarn`);
      const scaling = readYarn(json, originalContext(), context);
      return { scaling, context: stretch(scaling.originalContext, scaling.factor) };
    }
    case "longrope":
      return { scaling: readLong(json, originalContext(), from), context };
    case "dynamic":
      positive("factor");
  }
  return { context };
}

function readYarn(json: JsonObject, originalContext: number, context: number): Yarn {
  const number = (key: string, fallback: number) => numberField(json, key, { min: 0, fallback });
  const factor = numberField(json, "factor", { min: 1e-6, fallback: context / originalContext });
  const [scale, scaleAll] = [number("mscale", 0), number("mscale_all_dim", 0)];
  const growth = (share: number) => factor <= 1 ? 1 : 0.1 * share * Math.log(factor) + 1;
  const usual = scale && scaleAll ? growth(scale) / growth(scaleAll) : growth(1);
  return {
    type: "yarn",
    factor,
    fastTurns: numberField(json, "beta_fast", { min: 1e-6, fallback: 32 }),
    slowTurns: numberField(json, "beta_slow", { min: 1e-6, fallback: 1 }),
    truncate: booleanField(json, "truncate", true),
    originalContext,
    attentionFactor: numberField(json, "attention_factor", { min: 1e-6, fallback: usual }),
  };
}

function readLong(json: JsonObject, originalContext: number, { context, rotatedSize }: ScalingContext): LongRope {
  const factor = numberField(json, "factor", { min: 1e-6, fallback: context / originalContext });
  const usual = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalContext));
  const factors = (key: string) => {
    const found = listField(json, key);
    const isFactor = (value: unknown): value is number => typeof value === "number" && value >= 1e-6;
    if (found.length === rotatedSize / 2 && found.every(isFactor)) return found;
    throw new SyntaxError(`${json.name}: ${key} is ${quoteText(found)}, must be ${rotatedSize / 2} positive numbers`);
  };
  return {
    type: "longrope",
    shortFactors: factors("short_factor"),
    longFactors: factors("long_factor"),
    originalContext,
    attentionFactor: numberField(json, "attention_factor", { min: 1e-6, fallback: usual }),
  };
}
