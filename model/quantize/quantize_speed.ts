// How fast a model's layers are quantized on the device, and the memory that it takes.
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import type { Quantizer } from "../../quant/quantize.ts";
import { measuresInput } from "../../quant/quantizer.ts";
import type { ModelConfig } from "../llama/config.ts";
import { LINEAR_KINDS, type LinearKind } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import { gpuDevice } from "./gpu_device.ts";
import { quantizeLayers } from "./quantize_layers.ts";
import { randomSource } from "../engine/random_source.ts";
import type { HostMatrix } from "../../kernels/product/weight_format.ts";

export interface QuantizeSpeed {
  /** Time of the first layer, in ms: kernels are compiled and the calibration text is put on its way. */
  readonly firstLayerMs: number;
  /** Time of the second layer, in ms, its planes read back; all layers but the first take as long. */
  readonly layerMs: number;
  /** The most device memory held, in bytes. */
  readonly deviceBytes: number;
  /** Of that, the calibration text's activations between two stages and the products of windows side by side. */
  readonly activationBytes: number;
  /** Memory of the process afterwards, in bytes; it holds one layer in f32. */
  readonly hostBytes: number;
}

/**
 * Quantizes two layers of random weights; without reading them from files and without writing the planes to one.
 *
 * @param config of the model; its number of layers doesn't matter
 * @param windows calibration windows, for quantizers that measure inputs
 */
export async function measureQuantizing(
  gpu: Gpu,
  config: ModelConfig,
  quantizer: Quantizer,
  { windows, windowTokens }: { readonly windows: number; readonly windowTokens: number },
): Promise<QuantizeSpeed> {
  const source = randomSource(config, "f16");
  const linears: Partial<Record<LinearKind, Layer["linears"]["q_proj"]>> = {};
  for (const kind of LINEAR_KINDS) linears[kind] = toFloats(await source.linear(0, kind));
  const ones = new Float32Array(config.hidden).fill(1);
  const layer = { linears: linears as Layer["linears"], attentionNorm: ones, mlpNorm: ones };
  const embedding = await source.half("embedding", config.vocabulary, config.hidden);
  const token = (i: number) => (Math.imul(i + 1, 0x9e3779b1) >>> 0) % config.vocabulary;
  const calibration = measuresInput(quantizer)
    ? {
      embedding: toFloats(embedding).weights,
      windows: Array.from(
        { length: windows },
        (_, window) => Uint32Array.from({ length: windowTokens }, (_, i) => token(window * windowTokens + i)),
      ),
      correctTarget: quantizer.correctTarget === true,
    }
    : undefined;
  const before = gpu.heldBytes;
  const ends = [performance.now()];
  let activationBytes: number | undefined;
  const readLayer = () => {
    // Nothing but the text is on the device when the first layer is asked for.
    activationBytes ??= gpu.heldBytes - before;
    return Promise.resolve(layer);
  };
  const twoLayers = { ...config, layers: 2 };
  using run = await gpuDevice(gpu).start(twoLayers, calibration);
  await quantizeLayers(run, { config: twoLayers, readLayer }, {
    quantizerOf: () => quantizer,
    async onLayer() {
      await gpu.wait();
      ends.push(performance.now());
    },
  });
  return {
    firstLayerMs: ends[1] - ends[0],
    layerMs: ends[2] - ends[1],
    deviceBytes: gpu.peakBytes,
    activationBytes: activationBytes!,
    hostBytes: Deno.memoryUsage().rss,
  };
}

function toFloats(matrix: HostMatrix) {
  if (matrix.kind !== "f16") throw new TypeError("random weights are packed, must be f16");
  return { ...matrix, weights: Float32Array.from(matrix.weights) };
}
