// Timing dispatches on the device's own clock.
import { type Dispatch, encodeDispatches, type Gpu } from "./gpu.ts";

/** Times of one piece of work; raw samples are kept so that tables can be checked. */
export interface Timing {
  /** Microseconds of one sequence of dispatches, in the order of measurement. */
  readonly samplesUs: readonly number[];
  readonly medianUs: number;
  readonly minUs: number;
  readonly maxUs: number;
  /** Samples dropped because the timestamps were zero or ran backwards. */
  readonly invalid: number;
}

export interface TimeOptions {
  /** Timed passes; at least 10. Default: 15. */
  readonly samples?: number;
  /** Sequences in one timed pass. Default: one for each sequence. */
  readonly repeats?: number;
  /**
   * Milliseconds of the same work in the pass that precedes the timed ones in the same submit, so that clocks have
   * risen and caches hold what they will hold. Default: 60.
   */
  readonly warmUpMs?: number;
  /** Nanoseconds of one timestamp tick, see {@linkcode calibrateTicks}. Default: 1. */
  readonly tickNs?: number;
}

/**
 * Times sequences of dispatches: sequence 0, 1, ... in rotation, so that with weights in each that together exceed the
 * cache every sequence reads its own from memory. All passes go in one submit, since between submits a GPU lowers its
 * clocks. Dispatches that write the same output wait for each other, as in a decode step.
 *
 * @returns microseconds of one sequence
 * @throws {Error} when the device has no timestamps, or fewer than half of them are valid
 */
export async function timeDispatches(
  gpu: Gpu,
  sequences: readonly (readonly Dispatch[])[],
  options: TimeOptions = {},
): Promise<Timing> {
  const work = { sequences, repeats: options.repeats ?? sequences.length };
  const rounds = Math.max(10, options.samples ?? 15);
  const { samplesUs: [samplesUs], invalid } = await timeRounds(gpu, [work], { ...options, rounds });
  const sorted = samplesUs.toSorted((a, b) => a - b);
  return {
    samplesUs,
    medianUs: sorted[Math.floor(sorted.length / 2)],
    minUs: sorted[0],
    maxUs: sorted[sorted.length - 1],
    invalid,
  };
}

/** Sequences of dispatches that take turns, and how many of them are one sample. */
export interface Work {
  readonly sequences: readonly (readonly Dispatch[])[];
  readonly repeats: number;
}

/** Times of several pieces of work that took turns. */
export interface Rounds {
  /** Microseconds of one sequence by work, then by round: round i of all works was measured side by side. */
  readonly samplesUs: readonly (readonly number[])[];
  /** Rounds dropped because timestamps were zero or ran backwards. */
  readonly invalid: number;
}

/**
 * Times several pieces of work in turn, one pass of each in every round, in one submit: what slows the device for a
 * while slows all of them alike, and their samples can be compared round by round.
 *
 * @throws {Error} when the device has no timestamps, or fewer than half of the rounds are valid
 */
export async function timeRounds(
  gpu: Gpu,
  works: readonly Work[],
  { rounds, warmUpMs = 60, tickNs = 1 }: Omit<TimeOptions, "samples" | "repeats"> & { readonly rounds: number },
): Promise<Rounds> {
  if (!gpu.features.has("timestamp-query")) {
    throw new Error("the device lacks timestamp-query, want it for timing");
  }
  const probe = validRounds(await timePasses(gpu, works, 3, works.map(({ repeats }) => repeats)), works, tickNs);
  const shareUs = (warmUpMs * 1000) / works.length;
  const warmUps = probe.map((samplesUs) => Math.min(MAX_WARM_UP, Math.ceil(shareUs / Math.min(...samplesUs, 1e6))));
  const samplesUs = validRounds(await timePasses(gpu, works, rounds, warmUps), works, tickNs);
  const invalid = rounds - samplesUs[0].length;
  if (invalid > rounds / 2) {
    throw new Error(`${rounds - invalid} of ${rounds} rounds have valid timestamps, want at least half`);
  }
  return { samplesUs, invalid };
}

/** Most sequences of a warm-up pass: encoding one costs the CPU a few microseconds a dispatch. */
const MAX_WARM_UP = 8192;

/** Begin and end ticks of a pass of each work in each round, after a pass of so many sequences of each to warm up. */
async function timePasses(
  gpu: Gpu,
  works: readonly Work[],
  rounds: number,
  warmUps: readonly number[],
): Promise<BigUint64Array> {
  const passes = rounds * works.length;
  const querySet = gpu.device.createQuerySet({ type: "timestamp", count: 2 * passes });
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const ticks = await gpu.createBuffer("timestamps", 16 * passes, usage);
  const encoder = gpu.device.createCommandEncoder();
  const next = works.map(() => 0);
  const encodePass = (work: number, count: number, timestampWrites?: GPUComputePassTimestampWrites) => {
    const { sequences } = works[work];
    const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    for (let i = 0; i < count; i++) encodeDispatches(pass, sequences[next[work]++ % sequences.length]);
    pass.end();
  };
  for (const [work, count] of warmUps.entries()) encodePass(work, count);
  for (let i = 0; i < passes; i++) {
    const work = i % works.length;
    const writes = { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 };
    encodePass(work, works[work].repeats, writes);
  }
  encoder.resolveQuerySet(querySet, 0, 2 * passes, ticks, 0);
  gpu.device.queue.submit([encoder.finish()]);
  const stamps = new BigUint64Array(await gpu.read(ticks));
  gpu.destroyBuffer(ticks);
  querySet.destroy();
  return stamps;
}

/** Microseconds of a sequence by work and round, of the rounds in which all timestamps are valid. */
function validRounds(stamps: BigUint64Array, works: readonly Work[], tickNs: number): number[][] {
  const samplesUs = works.map((): number[] => []);
  for (let first = 0; first < stamps.length; first += 2 * works.length) {
    const ticks = works.map((_, i) => Number(stamps[first + 2 * i + 1] - stamps[first + 2 * i]));
    if (!ticks.every((count, i) => count > 0 && stamps[first + 2 * i] !== 0n)) continue;
    for (const [i, count] of ticks.entries()) samplesUs[i].push((count * tickNs) / 1000 / works[i].repeats);
  }
  return samplesUs;
}

/**
 * Nanoseconds of one timestamp tick, which WebGPU promises to be 1 and Deno does not scale: a long run of dispatches
 * timed by both clocks. Rounded to 1 where it is within 10 % of it, since the fence adds to the host's time.
 */
export async function calibrateTicks(gpu: Gpu, dispatch: Dispatch, targetMs = 50): Promise<number> {
  const first = await timeDispatches(gpu, [[dispatch]], { samples: 10, repeats: 1, warmUpMs: 0 });
  const repeats = Math.max(1, Math.min(4096, Math.round((targetMs * 1000) / first.medianUs)));
  await gpu.wait();
  const started = performance.now();
  const work = { sequences: [[dispatch]], repeats };
  const stamps = await timePasses(gpu, [work], 1, [0]);
  const hostUs = (performance.now() - started) * 1000;
  const deviceUs = validRounds(stamps, [{ ...work, repeats: 1 }], 1)[0][0];
  const ratio = hostUs / deviceUs;
  return Math.abs(ratio - 1) < 0.1 ? 1 : ratio;
}
