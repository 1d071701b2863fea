// Fixtures of the engine's tests: models, packed models, and continuations to compare with.
import { forward, logitsOf } from "../../model/llama/forward.ts";
import type { LinearKind } from "../../model/llama/layer.ts";
import type { Model } from "../../model/llama/llama.ts";
import { matmulPlain } from "./llama/matmul_plain.ts";
import { openDirectory } from "../../model/files/open_directory.ts";
import { cpuDevice } from "../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../model/quantize/packed_writer.ts";
import { twobitQuantizer } from "../../quant/recipe.ts";
import { createCpuPool } from "../../model/workers/cpu_pool.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import { packPlan } from "./pack_plan.ts";

/** Where a fixture is. */
export const fixture = (name: string) => new URL(`../fixtures/${name}`, import.meta.url);

/** Fixtures of every architecture, with a continuation to compare with but for the first. */
export const ARCHITECTURE_FIXTURES = [
  "llama3_scaled_bias",
  "mistral_window",
  "qwen2_tied",
  "qwen3_wide_heads",
  "glm_partial",
  "phi3_fused",
  "phi3_partial_window",
  "phi3_longrope",
  "llama_linear",
  "llama_dynamic",
  "qwen2_yarn",
];

/** Logits of Hugging Face transformers, in f32 where the engine has f16 weights and activations. */
export const LOGIT_TOLERANCE = 5e-3;

/** A continuation by Hugging Face transformers, with the gap between the two best logits of each step. */
export interface Continuation {
  readonly prompt: readonly number[];
  readonly tokens: readonly number[];
  readonly gaps: readonly number[];
}

/** Logits of some positions of a sequence (make_llama.py, make_architectures.py). */
export interface ExpectedLogits {
  readonly tokens: readonly number[];
  readonly positions: readonly number[];
  readonly logits: readonly number[][];
  readonly greedy?: Continuation;
}

/** Quantizes a fixture: one density everywhere, or one that differs between matrices with the same input. */
export async function quantizeFixture(name: string, path: string, quantizerOf: (kind: LinearKind) => Quantizer) {
  using source = await openDirectory(fixture(name).pathname);
  using pool = createCpuPool(1);
  await writePackedFile(
    cpuDevice(pool),
    source,
    packPlan(path, {
      calibration: [Uint32Array.from({ length: 64 }, (_, i) => (i * 37) % 96)],
      correctTarget: true,
      quantizerOf: (_layer, kind) => quantizerOf(kind),
    }),
  );
}

const outliers = { share: 0.01, groups: "both", rule: "error" } as const;
/** Densities of packed fixtures: names, and quantizers of each kind of matrix. */
export const DENSITIES: readonly (readonly [string, (kind: LinearKind) => Quantizer])[] = [
  ["one density, outliers", () => twobitQuantizer({ outliers })],
  [
    "a density of each kind",
    (kind) => twobitQuantizer({ refineEvery: kind.startsWith("q") ? "none" : kind.startsWith("u") ? 2 : 8 }),
  ],
];

/** Greedy continuation by the CPU reference. */
export function continueOnCpu(model: Model, prompt: Uint32Array, count: number, matmul = matmulPlain): Continuation {
  const tokens: number[] = [];
  const gaps: number[] = [];
  while (tokens.length < count) {
    const { hidden } = forward(model, [{ tokens: Uint32Array.from([...prompt, ...tokens]) }], matmul);
    const last = logitsOf(model, hidden.subarray(-model.config.hidden), matmul);
    const order = Array.from(last.keys()).sort((a, b) => last[b] - last[a]);
    gaps.push(last[order[0]] - last[order[1]]);
    tokens.push(order[0]);
  }
  return { prompt: [...prompt], tokens, gaps };
}
