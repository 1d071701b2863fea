/**
 * Input of a product in f16: what {@linkcode f16Gemv} reads, from what a decode step has.
 *
 * @module
 */
import { CHUNK_CHANNELS } from "./f16_matrix.ts";
import { inputBuffers, inputConstants, type ValuesInput } from "./gemv_modes.ts";
import type { Dispatch, Gpu } from "./gpu.ts";
import { chooseTeam, type Team } from "./team.ts";
import kernelCode from "./prepare_input.wgsl" with { type: "text" };
import combineSplitsCode from "./lib/combine_splits.wgsl" with { type: "text" };
import inputValuesCode from "./lib/input_values.wgsl" with { type: "text" };
import reduceCode from "./lib/reduce.wgsl" with { type: "text" };

/** Threads of a workgroup; a norm has one workgroup, as large as may be. */
const THREADS = 256;
const NORM_THREADS = 1024;
/** Channels of a thread. */
const QUAD = 4;

/** The whole shader for a kind of team. */
export function prepareInputCode(team: Team): string {
  return [kernelCode, inputValuesCode, combineSplitsCode, reduceCode, team.exchangeCode].join("\n");
}

/**
 * Dispatch that computes a product's input and rounds it to f16.
 *
 * @param prepared f16 [tokens, chunks * 8], chunks = ceil(channels / 8); padding channels become 0
 */
export async function prepareInput(
  gpu: Gpu,
  channels: number,
  input: ValuesInput,
  prepared: GPUBuffer,
  tokens = 1,
): Promise<Dispatch> {
  const team = chooseTeam(gpu);
  const quads = Math.ceil(channels / CHUNK_CHANNELS) * (CHUNK_CHANNELS / QUAD);
  const isNorm = input.kind === "rms_norm";
  const threads = isNorm ? Math.min(NORM_THREADS, gpu.device.limits.maxComputeInvocationsPerWorkgroup) : THREADS;
  const kernel = await gpu.createKernel("prepare_input", prepareInputCode(team), {
    ...inputConstants(input, channels),
    quads,
    team: team.lanes,
    workgroup_size: threads,
  });
  const bindings = gpu.bind(kernel, [...inputBuffers(input), prepared]);
  return { kernel, bindings, workgroups: [isNorm ? 1 : Math.ceil(quads / threads), tokens, 1] };
}
