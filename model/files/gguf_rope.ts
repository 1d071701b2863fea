// Rotary position embedding as a GGUF file's metadata and tensors describe it, in fields of a `config.json`.
import type { GgufFile } from "./gguf_file.ts";
import { readGgufTensor } from "./gguf_tensor.ts";
import { refuseOthers } from "../host/json.ts";
import { rotationOf } from "../llama/rope.ts";
import { neededTensor } from "./tensor_layout.ts";

/** Llama 3's published scaling, but for its factor: what rope_freqs is compared with, since it holds only the result. */
const LLAMA3 = { type: "llama3", lowFrequencyFactor: 1, highFrequencyFactor: 4, originalContext: 8192 } as const;

const LONG_FACTORS = { long_factor: "rope_factors_long.weight", short_factor: "rope_factors_short.weight" };

/** Tensors that describe a model and aren't computed with. */
export const ROPE_TENSORS = ["rope_freqs.weight", ...Object.values(LONG_FACTORS)];

/** What is read beside the metadata: base of the frequencies, elements of a head and those that rotate. */
interface HeadRope {
  readonly theta: number;
  readonly headSize: number;
  readonly rotatedSize: number;
}

/**
 * The scaling, as `rope_scaling` of config.json; undefined where there is none.
 *
 * @param value a number or text of the metadata, by its key behind the architecture
 * @throws {SyntaxError} for one that is unknown
 */
export async function describeScaling(
  file: GgufFile,
  value: (key: string) => unknown,
  rope: HeadRope,
): Promise<object | undefined> {
  const setting = (key: string) => value(`rope.scaling.${key}`) || undefined;
  // llama.cpp divides by a pair's factor wherever these tensors are; of the type it doesn't ask.
  if (Object.values(LONG_FACTORS).some((name) => file.tensors.has(name))) return await describeLong(file, setting);
  const llama3 = await findLlama3(file, rope);
  // Without a type a factor is linear scaling, under its older name too.
  const factor = setting("factor") ?? value("rope.scale_linear");
  const type = setting("type") ?? (factor && factor !== 1 ? "linear" : "none");
  const attention = Number(setting("attn_factor") ?? 1);
  if (type === "yarn" && !llama3) {
    // llama.cpp multiplies its attention factor with that of the paper, which transformers takes where none is stated.
    return {
      rope_type: type,
      factor,
      original_max_position_embeddings: setting("original_context_length"),
      ...(attention !== 1 && { attention_factor: attention * (1 + 0.1 * Math.log(Number(factor))) }),
      beta_fast: setting("yarn_beta_fast"),
      beta_slow: setting("yarn_beta_slow"),
    };
  }
  refuseOthers(file.source.name, "rope.scaling.type", type, llama3 ? ["none"] : ["none", "linear", "yarn"]);
  refuseOthers(file.source.name, "rope.scaling.attn_factor", attention, [1]);
  return type === "linear" ? { rope_type: type, factor } : llama3;
}

async function describeLong(file: GgufFile, setting: (key: string) => unknown): Promise<object> {
  const factors = async (name: string) =>
    Array.from(await readGgufTensor(neededTensor(file.source.name, file.tensors, name)));
  return {
    rope_type: "longrope",
    long_factor: await factors(LONG_FACTORS.long_factor),
    short_factor: await factors(LONG_FACTORS.short_factor),
    original_max_position_embeddings: setting("original_context_length"),
    attention_factor: setting("attn_factor") ?? 1,
  };
}

/** Settings of Llama 3's scaling that give the divisors of frequencies in rope_freqs. @throws {SyntaxError} for others */
async function findLlama3(file: GgufFile, { theta, headSize, rotatedSize }: HeadRope): Promise<object | undefined> {
  const tensor = file.tensors.get("rope_freqs.weight");
  if (!tensor) return undefined;
  const divisors = await readGgufTensor(tensor);
  const factor = divisors.reduce((max, divisor) => Math.max(max, divisor), 0);
  const [plain, scaled] = [{}, { scaling: { ...LLAMA3, factor } }].map((scaling) =>
    rotationOf({ theta, rotatedSize, ...scaling }, headSize, 1).frequencies
  );
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
