/**
 * Timing dispatches on the device's own clock.
 *
 * @module
 */
import { type Dispatch, encodeDispatches, type Gpu } from "./gpu.ts";

/** Times of one piece of work; raw samples are kept so that tables can be checked. */
export interface Timing {
  /** Microseconds of one sequence of dispatches, in the order of measurement. */
  readonly samplesUs: readonly number[];
  /** Median of the samples. */
  readonly medianUs: number;
  /** Least of the samples. */
  readonly minUs: number;
  /** Greatest of the samples. */
  readonly maxUs: number;
  /** Samples dropped because the timestamps were zero or ran backwards. */
  readonly invalid: number;
}

/** What {@linkcode timeDispatches} accepts. */
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
  if (!gpu.features.has("timestamp-query")) {
    throw new Error("the device lacks timestamp-query, want it for timing");
  }
  const repeats = options.repeats ?? sequences.length;
  const tickNs = options.tickNs ?? 1;
  const probe = await timePasses(gpu, sequences, 3, repeats, repeats);
  const probeUs = Math.min(...samplesOf(probe, repeats, tickNs), 1e6);
  const warmUp = Math.min(MAX_WARM_UP, Math.ceil(((options.warmUpMs ?? 60) * 1000) / probeUs));
  const stamps = await timePasses(gpu, sequences, Math.max(10, options.samples ?? 15), repeats, warmUp);
  return summarize(stamps, repeats, tickNs);
}

/** Most sequences of a warm-up pass: encoding one costs the CPU a few microseconds a dispatch. */
const MAX_WARM_UP = 8192;

/** Begin and end ticks of `samples` passes of `repeats` sequences each, after one pass of `warmUp` sequences. */
async function timePasses(
  gpu: Gpu,
  sequences: readonly (readonly Dispatch[])[],
  samples: number,
  repeats: number,
  warmUp: number,
): Promise<BigUint64Array> {
  const querySet = gpu.device.createQuerySet({ type: "timestamp", count: 2 * samples });
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const ticks = await gpu.createBuffer("timestamps", 16 * samples, usage);
  const encoder = gpu.device.createCommandEncoder();
  let next = 0;
  const encodePass = (count: number, timestampWrites?: GPUComputePassTimestampWrites) => {
    const pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
    for (let i = 0; i < count; i++) encodeDispatches(pass, sequences[next++ % sequences.length]);
    pass.end();
  };
  encodePass(warmUp);
  for (let i = 0; i < samples; i++) {
    encodePass(repeats, { querySet, beginningOfPassWriteIndex: 2 * i, endOfPassWriteIndex: 2 * i + 1 });
  }
  encoder.resolveQuerySet(querySet, 0, 2 * samples, ticks, 0);
  gpu.device.queue.submit([encoder.finish()]);
  const stamps = new BigUint64Array(await gpu.read(ticks));
  gpu.destroyBuffer(ticks);
  querySet.destroy();
  return stamps;
}

function samplesOf(stamps: BigUint64Array, repeats: number, tickNs: number): number[] {
  const samplesUs: number[] = [];
  for (let i = 0; i < stamps.length; i += 2) {
    if (stamps[i] === 0n || stamps[i + 1] <= stamps[i]) continue;
    samplesUs.push((Number(stamps[i + 1] - stamps[i]) * tickNs) / 1000 / repeats);
  }
  return samplesUs;
}

function summarize(stamps: BigUint64Array, repeats: number, tickNs: number): Timing {
  const samplesUs = samplesOf(stamps, repeats, tickNs);
  const count = stamps.length / 2;
  if (samplesUs.length < count / 2) {
    throw new Error(`${samplesUs.length} of ${count} timestamp pairs are valid, want at least half`);
  }
  const sorted = samplesUs.toSorted((a, b) => a - b);
  return {
    samplesUs,
    medianUs: sorted[Math.floor(sorted.length / 2)],
    minUs: sorted[0],
    maxUs: sorted[sorted.length - 1],
    invalid: count - samplesUs.length,
  };
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
  const stamps = await timePasses(gpu, [[dispatch]], 1, repeats, 0);
  const hostUs = (performance.now() - started) * 1000;
  const deviceUs = samplesOf(stamps, 1, 1)[0];
  const ratio = hostUs / deviceUs;
  return Math.abs(ratio - 1) < 0.1 ? 1 : ratio;
}
