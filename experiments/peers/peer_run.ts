// What was measured of another program, and the result file that it becomes.
import { medianEstimate } from "../../model/host/statistics.ts";
import { PEER_COLUMNS, PEERS_ID, peersProblem, type PeerValue, samplesName } from "../results/peers.ts";
import { type Cell, estimateCells, type Provenance, type Result, type Row } from "../results/result.ts";

/** Samples of one speed or time of a program. */
export interface PeerMeasurement {
  readonly key: PeerValue;
  readonly model?: string;
  /** Rows x channels of a product. */
  readonly shape?: string;
  readonly format: string;
  /** Tokens in the cache before. */
  readonly context?: number;
  /** Tokens of a prompt. */
  readonly prompt?: number | null;
  readonly samples: readonly number[];
}

export interface PeerRun {
  readonly program: string;
  readonly version: string;
  /** The GPU that it ran on, as it says itself; empty where it ran on none. */
  readonly gpu: string;
  readonly built: string;
  readonly command: string;
  readonly measurements: readonly PeerMeasurement[];
}

/** @throws {Error} where a program ran on another GPU than our own tables are made on, or on none */
function checkGpu({ program, gpu }: PeerRun, { adapter }: Provenance["device"]): void {
  if (gpu !== "" && (gpu.includes(adapter) || adapter.includes(gpu))) return;
  throw new Error(`${program} ran on ${gpu || "no GPU"}, must run on ${adapter}, as our own tables`);
}

/**
 * The result file of some programs, with what an earlier file of the same device has of others.
 *
 * @throws {Error} when a program ran on another GPU than that device, or on none
 * @throws {RangeError} when a program's numbers are no numbers
 */
export function peersResult(runs: readonly PeerRun[], provenance: Provenance, earlier?: Result): Result {
  for (const run of runs) checkGpu(run, provenance.device);
  const isKept = (name: unknown) => !runs.some(({ program }) => program === name);
  const kept = earlier?.device.adapter === provenance.device.adapter ? earlier : undefined;
  const rows: Row[] = kept?.rows.filter(({ program }) => isKept(program)) ?? [];
  const samples = Object.fromEntries(rows.map((row) => [samplesName(row), kept!.samples![samplesName(row)]]));
  const settings = Object.entries(kept?.settings ?? {}).filter(([name]) => isKept(name.split(":")[0]));
  const date = provenance.environment.startedAt.slice(0, 10);
  for (const { program, version, measurements } of runs) {
    for (const { key, samples: values, ...subject } of measurements) {
      const experiment = key === "time_us" ? "async" : "end_to_end";
      const cells: Record<string, Cell> = { experiment, program, version, date, ...subject };
      const row = { ...cells, ...estimateCells(key, medianEstimate(values)) };
      rows.push(row);
      samples[samplesName(row)] = values;
    }
  }
  const result: Result = {
    schema: 1,
    id: PEERS_ID,
    title: "Other programs",
    claim: "None of the paper's: what people would use instead, beside our tables.",
    ...provenance,
    settings: Object.fromEntries([
      ...settings,
      ...runs.flatMap(({ program, built, command }) => [
        [`${program}: built`, built],
        [`${program}: command`, command],
      ]),
    ]),
    columns: PEER_COLUMNS,
    rows,
    samples,
    verdict: {
      paper: "nothing",
      measured: null,
      unit: "",
      status: "not measured",
      note: "Other programs, in a run of their own, are no part of any verdict.",
    },
  };
  const problem = peersProblem(result);
  if (problem) throw new RangeError(`peers: ${problem}`);
  return result;
}
