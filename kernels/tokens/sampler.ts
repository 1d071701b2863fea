// Launchers of the kernels that choose the next token and feed it back: argmax or sampling, then advance. Each serves
// one sequence or several in one dispatch, their index in workgroup.z.
import { CHUNK_CHANNELS, type F16Matrix } from "../matrix/f16_matrix.ts";
import type { Dispatch, Gpu } from "../gpu/gpu.ts";
import { joinShader } from "../gpu/shader.ts";
import * as wgsl from "./wgsl.ts";

/** Token stored where a logit was not a number or +Infinity, or none was finite. */
export const NOT_A_NUMBER_TOKEN = 0xffffffff;

/** Candidates that {@linkcode argmax} leaves, two words each. */
export const CANDIDATES = 64;

/**
 * How a token is drawn. Tokens whose logits are equal are kept or dropped together, so that their order doesn't matter:
 * of ties with the last token that topK or topP keeps, all are kept, and there may be more tokens than topK.
 */
export interface Sampling {
  /** Divides the logits; above 0, in f32 a normal number: 2^-126 to 3.4e38. */
  readonly temperature: number;
  /**
   * The fewest most likely tokens are kept, of those that topK keeps, that together have at least this share of the
   * probability, ties with the last one included; 0 to 1, and 1 keeps all.
   */
  readonly topP: number;
  /** How many of the most likely tokens are kept, ties with the last one on top; an integer below 2^32, 0 keeps all. */
  readonly topK: number;
  /** The same seed draws the same tokens; an integer from 0 to 2^32 - 1. */
  readonly seed: number;
}

/** Bytes of the settings that {@linkcode sample} reads. */
export const SAMPLING_BYTES = 16;

const SMALLEST_NORMAL = 2 ** -126;

function checkSampling({ temperature, topP, topK, seed }: Sampling): void {
  const rounded = Math.fround(temperature);
  if (!(rounded >= SMALLEST_NORMAL && rounded < Infinity)) {
    throw new RangeError(`temperature is ${temperature}, must be a positive number, normal in f32`);
  }
  if (!(topP >= 0 && topP <= 1)) throw new RangeError(`topP is ${topP}, must be 0 to 1`);
  for (const [name, value] of Object.entries({ topK, seed })) {
    if (value !== value >>> 0) throw new RangeError(`${name} is ${value}, must be an integer from 0 to 2^32 - 1`);
  }
}

/** Settings as {@linkcode sample} reads them. @throws {RangeError} when one is out of its range */
export function packSampling(sampling: Sampling): Uint32Array<ArrayBuffer> {
  checkSampling(sampling);
  const { temperature, topP, topK, seed } = sampling;
  const words = new Uint32Array(SAMPLING_BYTES / 4);
  new Float32Array(words.buffer).set([temperature, topP]);
  words.set([topK, seed], 2);
  return words;
}

const WORKGROUP_SIZE = 256;

/**
 * Dispatch that leaves the most likely tokens of {@linkcode CANDIDATES} parts of the vocabulary.
 *
 * @param logits f32 [sequences, length]
 * @param candidates u32 [sequences, CANDIDATES, 2]
 */
export async function argmax(
  gpu: Gpu,
  length: number,
  logits: GPUBuffer,
  candidates: GPUBuffer,
  sequences = 1,
): Promise<Dispatch> {
  return await gpu.makeDispatch(joinShader(wgsl, "argmax", "score_logit"), {
    constants: { length, workgroup_size: WORKGROUP_SIZE },
    buffers: { logits, candidates },
    workgroups: [CANDIDATES, 1, sequences],
  });
}

export interface SampleBuffers {
  /** f32 [sequences, length]. */
  readonly logits: GPUBuffer;
  /** {@linkcode packSampling} of each sequence. */
  readonly settings: GPUBuffer;
  /** u32 [sequences, 2]: position of the token before the one that is drawn, and a word not read. */
  readonly sequence: GPUBuffer;
  /** u32 [sequences, CANDIDATES, 2]. */
  readonly candidates: GPUBuffer;
  /** {@linkcode selectionBytes} of each sequence, at first zeros. */
  readonly selection: GPUBuffer;
}

/** Bins of a draw's histogram: as many as a workgroup has threads, of which a software adapter is better off with few. */
function selectionBins({ profile }: Gpu): number {
  return Math.min(profile.software ? 256 : 1024, profile.workgroupThreads);
}

/** Bytes that a draw works in, for each sequence. */
export function selectionBytes(gpu: Gpu): number {
  return 4 * (2 + 2 * selectionBins(gpu));
}

/**
 * Dispatches that draw a token; it is the best of {@linkcode CANDIDATES} that they leave, as {@linkcode argmax} does.
 * Tokens less likely than exp(-21) beside the best are never drawn.
 */
export async function sample(gpu: Gpu, length: number, buffers: SampleBuffers, sequences = 1): Promise<Dispatch[]> {
  const { logits, settings, sequence, candidates, selection } = buffers;
  const bins = selectionBins(gpu);
  return [
    await argmax(gpu, length, logits, candidates, sequences),
    await gpu.makeDispatch(joinShader(wgsl, "sample_histogram"), {
      constants: { length, bins, candidate_count: CANDIDATES, workgroup_size: WORKGROUP_SIZE },
      buffers: { logits, candidates, settings, selection },
      workgroups: [Math.min(CANDIDATES, Math.ceil(length / WORKGROUP_SIZE)), 1, sequences],
    }),
    await gpu.makeDispatch(joinShader(wgsl, "sample_threshold"), {
      constants: { length, bins },
      buffers: { logits, settings, selection },
      workgroups: [1, 1, sequences],
    }),
    await gpu.makeDispatch(joinShader(wgsl, "argmax", "score_drawn"), {
      constants: { length, bins, workgroup_size: WORKGROUP_SIZE },
      buffers: { logits, candidates, settings, selection, sequence },
      workgroups: [CANDIDATES, 1, sequences],
    }),
  ];
}

export interface AdvanceBuffers {
  /** u32 [sequences, CANDIDATES, 2]: bits of a score, token. */
  readonly candidates: GPUBuffer;
  /** f16 [vocabulary, hidden]. */
  readonly embedding: F16Matrix;
  /** u32 [sequences, 2]: position, which is moved on by one, and index of the sequence's tokens. */
  readonly sequence: GPUBuffer;
  /** u32 [sequences, stride]: token of each position. */
  readonly tokens: GPUBuffer;
  /** Elements of `tokens` from one sequence to the next; needed where there are several. */
  readonly stride?: number;
  /** f32 [sequences, hidden]: input of the next step. */
  readonly hidden: GPUBuffer;
}

/**
 * Dispatches, one a slab of the embedding, that take the best candidate as the next token.
 *
 * @throws {RangeError} when the residual stream's width is not a multiple of 8
 */
export async function advance(gpu: Gpu, buffers: AdvanceBuffers, sequences = 1): Promise<Dispatch[]> {
  const { embedding, sequence, tokens, stride = 0, hidden } = buffers;
  const { channels, chunks, slabs } = embedding;
  if (channels !== chunks * CHUNK_CHANNELS) {
    throw new RangeError(`embedding has ${channels} channels, must be a multiple of ${CHUNK_CHANNELS}`);
  }
  return await Promise.all(
    slabs.map(({ firstRow, rows, weights }, i) =>
      gpu.makeDispatch(joinShader(wgsl, "advance"), {
        constants: {
          candidate_count: CANDIDATES,
          first_row: firstRow,
          rows,
          hidden_size: channels,
          stride,
          moves_on: i === slabs.length - 1 ? 1 : 0,
          workgroup_size: WORKGROUP_SIZE,
        },
        buffers: { candidates: buffers.candidates, embedding: weights, sequence, tokens, hidden },
        workgroups: [1, 1, sequences],
      })
    ),
  );
}
