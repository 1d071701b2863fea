import { evaluateModel } from "../../../model/evaluate/evaluation.ts";
import { loadModel } from "../../../model/load.ts";
import type { Layer, Linear, Model } from "../../../model/llama/llama.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { scoreWindow } from "../../../model/evaluate/score.ts";
import { mean } from "../../../model/host/statistics.ts";
import { createCpuScorer } from "../../../model/evaluate/scorer.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { quantizeStrips } from "../../../quant/baselines/strips.ts";
import { plainLayout } from "../../../quant/baselines/strip_layout.ts";
import { dequantizeStrips } from "../../../quant/baselines/strip_tensor.ts";
import { assert, assertClose, assertEquals } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** Hugging Face transformers 5.23 on weights rounded by numpy 2.4 (tests/fixtures/make_embedded_model.py). */
interface Expected {
  readonly windows: number[][];
  readonly rtn2_g16: {
    readonly windows: number[][];
    /** Mean negative log-likelihood of each window. */
    readonly loss: number[];
    /** KL(unquantized || quantized) of the first 64 predictions of the first window. */
    readonly divergence: number[];
  };
}

/** The model with every linear layer rounded to 2 bits in groups of 16. */
function roundToNearest(model: Model): Model {
  const settings = { layout: plainLayout(2, 16), search: "minmax" } as const;
  const round = (linear: Linear): Linear => ({
    ...linear,
    weights: dequantizeStrips(quantizeStrips(linear.weights, linear.rows, linear.channels, settings)),
  });
  const layers = model.layers.map((layer): Layer => {
    const linears = Object.entries(layer.linears).map(([kind, linear]) => [kind, round(linear)]);
    return { ...layer, linears: Object.fromEntries(linears) };
  });
  return { ...model, layers };
}

Deno.test("rtn2_g16 of the embedded model: perplexity and KL agree with transformers on numpy's weights", async () => {
  const { windows: [first], rtn2_g16: expected } = await readJson<Expected>("embedded_model.json");
  const { model } = await loadModel("tiny");
  using pool = createCpuPool();
  const quantized = roundToNearest(model);
  const windows = expected.windows.map((window) => Uint32Array.from(window));
  const scorer = createCpuScorer(pool);
  await scorer.setModel(quantized);
  const { windowLoss, perplexity, divergence } = await evaluateModel(
    scorer,
    { windows: { text: "sotu", windows, textTokens: 0 }, choices: undefined, divergenceWindows: 0 },
    "alone",
  );
  assertEquals(divergence, undefined);
  const wanted = Math.exp(mean(expected.loss));
  assert(Math.abs(perplexity.value / wanted - 1) < 2e-3, `perplexity is ${perplexity.value}, must be ${wanted}`);
  // The weights are the same bit for bit, so far more than the 0.2 % asked for holds.
  assertClose(windowLoss, expected.loss, 2e-5);

  const matmul = await createMatmulSimd();
  const tokens = Uint32Array.from(first.slice(0, 65));
  const reference = new Float32Array(64 * model.config.vocabulary);
  scoreWindow(model, tokens, matmul, { keep: reference });
  const compared = scoreWindow(quantized, tokens, matmul, { reference });
  assertClose(compared.divergence!, expected.divergence, 1e-4);
});
