import { whole } from "../../../kernels/gpu/plane.ts";
import { createBufferScope } from "../../../kernels/gpu/buffer_scope.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { embedTokens, runLayer } from "../../../model/llama/forward.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { openModel } from "../../../model/load.ts";
import { readParameters } from "../../../model/tune/parameters.ts";
import { createTuner, type TuningWindow } from "../../../model/tune/tuner.ts";
import { assert } from "../../assert.ts";
import { readJson } from "../../fixture.ts";
import { testGpu } from "../../kernels/helpers.ts";

/** What make_tuning.py finds with PyTorch. */
interface Gradients {
  readonly divergence: number;
  /** By linear layer, [tiles, groups]. */
  readonly scales: Readonly<Record<string, readonly number[]>>;
  /** By tensor. */
  readonly norms: Readonly<Record<string, readonly number[]>>;
}

const fixture = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

/** As in make_tuning.py. */
const WINDOWS = [
  Uint32Array.from({ length: 40 }, (_, i) => (7 * i + 3) % 96),
  Uint32Array.from({ length: 29 }, (_, i) => (11 * i * i + 5) % 96),
];

const norm = (values: ArrayLike<number>) =>
  Math.sqrt(Array.from(values).reduce((sum, value) => sum + value * value, 0));

/**
 * Keys, values and turned weights are f16 on the device, off by up to 2^-12 each. Gradients follow from the difference of
 * two models that say nearly the same, against which that is larger: 1.1 % of a gradient, at most.
 */
function assertGradient(actual: ArrayLike<number>, wanted: readonly number[], what: string): void {
  const distance = norm(wanted.map((value, i) => value - actual[i]));
  assert(actual.length === wanted.length, `${what} has ${actual.length} elements, must have ${wanted.length}`);
  assert(
    distance <= 2 ** -6 * norm(wanted),
    `${what} is off by ${distance}, must be ${norm(wanted)} within 2^-6 of it`,
  );
}

for (const name of ["llama_tied_gqa", "qwen2_tied", "qwen3_wide_heads", "mistral_window"]) {
  // One window of two in a pass, and both at once.
  for (const windows of name === "llama_tied_gqa" ? [1, 2] : [2]) {
    Deno.test(`tuner, ${name}, passes of ${windows}: divergence and gradients equal PyTorch's`, async () => {
      const gpu = await testGpu();
      const wanted = await readJson<Gradients>(`tuning/${name}.json`);
      using original = await openModel(fixture(name));
      const { config, embedding, layers } = await readModel(original);
      const matmul = await createMatmulSimd();
      using scope = createBufferScope(gpu);
      const text: TuningWindow[] = [];
      for (const tokens of WINDOWS) {
        const hidden = embedTokens(config, embedding, [{ tokens }]) as Float32Array<ArrayBuffer>;
        for (const layer of layers) {
          runLayer({ config, layer, hidden, lengths: [tokens.length], keyValues: [], matmul });
        }
        text.push({ tokens, hidden: whole(await scope.upload("hidden", hidden)) });
      }
      using packed = await openModel(fixture(`tuning/${name}.safetensors`));
      using weights = await uploadWeights(gpu, checkpointSource(packed));
      using tuner = await createTuner(gpu, weights, { windows, windowTokens: 64, longest: 40 });
      const { parameters } = tuner;
      for (const found of [await tuner.divergenceOf(text), await tuner.addGradients(text)]) {
        assert(Math.abs(found / wanted.divergence - 1) < 2 ** -9, `${found}, must be ${wanted.divergence}`);
      }
      const { scales, norms } = await readParameters(
        weights,
        (part) => gpu.readF32(parameters.scalesGradient(part)),
        (norm) => gpu.readF32(parameters.normGradient(norm), config.hidden),
      );
      assert(scales.size === 7 * config.layers && norms.size === 2 * config.layers + 1);
      for (const [linear, gradient] of scales) assertGradient(gradient, wanted.scales[linear], linear);
      for (const [tensor, gradient] of norms) assertGradient(gradient, wanted.norms[tensor], tensor);
    });
  }
}
