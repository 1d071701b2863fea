// What tuning changes: the second-order scales of packed matrices, by their logarithms, and the weights of norms.
//
// Codes could join them as a third kind, with a gradient for each weight.
import { type AdamBuffers, adamStep, adamWords, scaleTiles } from "../../kernels/backward/adam.ts";
import type { BufferScope } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { type PackedMatrix, scaleGroups } from "../../kernels/matrix/packed_matrix.ts";
import { HALF_BLOCK_GROUPS, TILE_ROWS, tilesPerColumn } from "../../quant/format.ts";
import type { EngineLayer, EngineWeights } from "../engine/engine_weights.ts";
import type { ModelConfig } from "../llama/config.ts";
import { type LinearKind, linearName, linearShape, normName, STAGES } from "../llama/layer.ts";

/** What tuning found, in host memory. */
export interface TunedParameters {
  /** f16 [tiles, groups] by the names of linear layers. */
  readonly scales: ReadonlyMap<string, Float16Array<ArrayBuffer>>;
  /** f32 by the names of norms' tensors. */
  readonly norms: ReadonlyMap<string, Float32Array<ArrayBuffer>>;
}

/** Gradients of all parameters, and steps along them. */
export interface Parameters {
  /** f32 [tiles, scaleGroups]: gradient of the logarithms of a matrix's scales. */
  scalesGradient(matrix: PackedMatrix): GPUBuffer;
  /** f32 [hidden]: gradient of a norm's weights, by the buffer that holds them. */
  normGradient(norm: GPUBuffer): GPUBuffer;
  /** Submits a step of Adam along the gradients, which are then zero. */
  step(rate: number): void;
  read(): Promise<TunedParameters>;
}

/** The packed matrices of a layer, as they are joined. */
export function packedParts({ linears }: EngineLayer): PackedMatrix[] {
  return STAGES.flatMap(({ name }) => linears[name]).filter((part) => part.kind === "packed");
}

/** Makes what goes with the parameters of a model: 12 bytes for each, and 4 more and 2 for a scale. */
export async function createParameters(gpu: Gpu, scope: BufferScope, weights: EngineWeights): Promise<Parameters> {
  const usage = GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST;
  const step = scope.own(await gpu.createBuffer("step", 16, usage));
  const gradients = new Map<PackedMatrix | GPUBuffer, GPUBuffer>();
  const dispatches: Dispatch[] = [];
  const add = async (key: PackedMatrix | GPUBuffer, values: GPUBuffer) => {
    const buffers: AdamBuffers = {
      step,
      values,
      gradient: await scope.storage("gradient", values.size),
      moments: await scope.storage("moments", 2 * values.size),
    };
    gradients.set(key, buffers.gradient);
    dispatches.push(await adamStep(gpu, values.size / 4, buffers));
  };
  for (const matrix of weights.layers.flatMap(packedParts)) {
    const { buffer, offset, size } = matrix.slabs[0].tileScale;
    const change = await scope.storage("change of scales", 2 * size);
    const start = await scope.storage("scales before", size);
    gpu.copy(buffer, offset, start, 0, size);
    await add(matrix, change);
    dispatches.push(await scaleTiles(gpu, start, change, { buffer, offset, size }));
  }
  const norms = [
    ...weights.layers.flatMap(({ attentionNorm, mlpNorm }) => [attentionNorm, mlpNorm]),
    weights.finalNorm,
  ];
  for (const norm of norms) await add(norm, norm);
  let steps = 0;
  return {
    scalesGradient: (matrix) => gradients.get(matrix)!,
    normGradient: (norm) => gradients.get(norm)!,
    step(rate) {
      gpu.write(step, adamWords(rate, ++steps));
      gpu.submit(dispatches);
    },
    read: () =>
      readParameters(
        weights,
        async ({ slabs: [{ tileScale: { buffer, offset, size } }] }) =>
          new Float16Array(await gpu.read(buffer, size, offset)),
        (norm) => gpu.readF32(norm, weights.config.hidden),
      ),
  };
}

/** Reads what belongs to scales, which lie in the parts that linear layers are joined in, and to norms, by their names. */
export async function readParameters<T extends Float16Array | Float32Array>(
  { config, layers, finalNorm }: EngineWeights,
  readScales: (part: PackedMatrix) => Promise<T>,
  readNorm: (norm: GPUBuffer) => Promise<Float32Array<ArrayBuffer>>,
): Promise<{ scales: Map<string, T>; norms: Map<string, Float32Array<ArrayBuffer>> }> {
  const scales = new Map<string, T>();
  const norms = new Map([["model.norm.weight", await readNorm(finalNorm)]]);
  for (const [i, layer] of layers.entries()) {
    for (const kind of ["attentionNorm", "mlpNorm"] as const) norms.set(normName(i, kind), await readNorm(layer[kind]));
    for (const { name, linears } of STAGES) {
      const parts = layer.linears[name].filter((part) => part.kind === "packed");
      for (const part of parts) {
        const values = await readScales(part);
        const groups = part.halfBlocks * HALF_BLOCK_GROUPS;
        const padded = scaleGroups(groups);
        for (const { kind, tile, tiles } of placesIn(config, linears, part)) {
          const own = values.subarray(tile * padded, (tile + tiles) * padded);
          scales.set(linearName(i, kind), own.filter((_: number, at: number) => at % padded < groups) as T);
        }
      }
    }
  }
  return { scales, norms };
}

/** The linear layers of a stage that are joined in a part, and which of its tiles are theirs. */
function placesIn(config: ModelConfig, kinds: readonly LinearKind[], { slabs: [{ firstRow, rows }] }: PackedMatrix) {
  let end = 0;
  const all = kinds.map((kind) => {
    const [kindRows] = linearShape(config, kind);
    const row = end - firstRow;
    end += kindRows;
    return { kind, row, tile: row / TILE_ROWS, tiles: tilesPerColumn(kindRows) };
  });
  return all.filter(({ row }) => row >= 0 && row < rows);
}
