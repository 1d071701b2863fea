// What other programs reach, `results/<device>/peers.json`: a result file of rows for other experiments' tables. It is
// made by `deno task peers`, in a run of its own, and no verdict counts it.
import type { Column, Result, Row } from "./result.ts";

export const PEERS_ID = "peers";

/** What a program reached, with its unit; the keys are those of our own tables. */
export const PEER_VALUES = {
  decode_tokens_per_s: "tokens/s",
  prefill_tokens_per_s: "tokens/s",
  time_us: "us",
} as const;

/** A value that a program reached. */
export type PeerValue = keyof typeof PEER_VALUES;

const LABELS: Readonly<Record<PeerValue, string>> = {
  decode_tokens_per_s: "decode, median",
  prefill_tokens_per_s: "prefill",
  time_us: "time, median",
};

/** Columns of the file. */
export const PEER_COLUMNS: readonly Column[] = [
  { key: "experiment", label: "beside", unit: "" },
  { key: "program", label: "program", unit: "" },
  { key: "version", label: "version", unit: "" },
  { key: "date", label: "measured", unit: "", timed: true },
  { key: "model", label: "model", unit: "" },
  { key: "shape", label: "rows x channels", unit: "" },
  { key: "format", label: "format", unit: "" },
  { key: "context", label: "context", unit: "tokens" },
  { key: "prompt", label: "prompt", unit: "tokens" },
  ...(Object.entries(PEER_VALUES) as [PeerValue, string][]).flatMap(([key, unit]) => [
    { key, label: LABELS[key], unit, timed: true },
    { key: `${key}_error`, label: "±", unit, timed: true },
  ]),
];

export function valueOf(row: Row): PeerValue | undefined {
  return (Object.keys(PEER_VALUES) as PeerValue[]).find((key) => typeof row[key] === "number");
}

/** What is wrong with a file of peers, or undefined where nothing is. */
export function peersProblem({ rows, samples = {}, settings, device, environment }: Result): string | undefined {
  if (!device?.adapter || !environment?.startedAt) return "device.adapter or environment.startedAt is missing";
  for (const [i, row] of rows.entries()) {
    const { experiment, program, version, date, format } = row;
    for (const [key, cell] of Object.entries({ experiment, program, version, date, format })) {
      if (typeof cell !== "string" || cell === "") return `row ${i} has ${key} ${JSON.stringify(cell)}, must be a text`;
    }
    for (const part of ["built", "command"]) {
      const name = `${program}: ${part}`;
      if (typeof settings?.[name] !== "string") return `settings lack "${name}", must say how it was ${part}`;
    }
    const value = valueOf(row);
    if (!value) return `row ${i} has no value, must have one of ${Object.keys(PEER_VALUES).join(", ")}`;
    const own = samples[samplesName(row)];
    if (!Array.isArray(own) || own.length < 2 || !own.every((sample) => sample > 0 && Number.isFinite(sample))) {
      return `samples of ${samplesName(row)} are ${JSON.stringify(own)}, must be two or more numbers above 0`;
    }
  }
}

/** Under which name a row's raw samples lie. */
export function samplesName(row: Row): string {
  const cells = ["program", "model", "shape", "format", "context", "prompt"].map((key) => row[key] ?? null);
  return `${cells.filter((cell) => cell !== null).join(" ")}: ${PEER_VALUES[valueOf(row)!]}`;
}

/**
 * The rows that belong beside an experiment's table, as a result with the columns that they fill; undefined where there
 * are none.
 */
export function peersBeside(peers: Result | undefined, id: string): Result | undefined {
  const rows = peers?.rows.filter(({ experiment }) => experiment === id) ?? [];
  if (!peers || rows.length === 0) return undefined;
  const filled = ({ key }: Column) => key !== "experiment" && rows.some((row) => (row[key] ?? null) !== null);
  return { ...peers, rows, columns: peers.columns.filter(filled) };
}

/** Says what rows of other programs are. */
export function describePeers({ device }: Result): string {
  return `Other programs, measured on ${device.name} (${device.adapter}) in runs of their own; no part of the verdict`;
}
