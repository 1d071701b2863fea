// `deno task compare`: two sets of results.
import { compareResults, counts, type Difference, incomparable } from "../experiments/results/compare_results.ts";
import { renderTable } from "../experiments/render.ts";
import { readResultSource, type ResultSet } from "../experiments/result_source.ts";
import { type Command, numberOption } from "./command.ts";

export const compare: Command = {
  name: "compare",
  summary:
    "Compares two sets of results. A and B are directories of result files or of devices, names of devices, or " +
    "git:REVISION. Exit code 1 when a cell that must repeat exactly differs beyond the tolerance, or an experiment, " +
    "row or column is missing on one side. Clock readings never count: they are noise where their samples overlap.",
  positionals: ["A", "B"],
  options: {
    tolerance: { value: "F", help: "Largest relative difference that doesn't count (default 0)." },
    common: {
      help: "Leave out, and name, experiments that only one side has, or that have another model, seed or settings.",
    },
    json: { help: "Print the differences as JSON." },
  },
  async run(options, [a, b]) {
    const tolerance = numberOption(options, "tolerance", 0, 0, 1);
    const [left, right] = [await readResultSource(a), await readResultSource(b)];
    if (left.size + right.size === 0) throw new Error(`neither ${a} nor ${b} holds result files`);
    const leftOut = options.common === true ? findUncommon(left, right) : new Map<string, string>();
    const kept = (set: ResultSet) => new Map([...set].filter(([name]) => !leftOut.has(name)));
    const compared = [kept(left), kept(right)] as const;
    if (compared[0].size + compared[1].size === 0) {
      throw new Error(`${a} and ${b} have nothing in common: ${describeLeftOut(leftOut)}`);
    }
    const differences = compareResults(...compared, tolerance);
    const counting = differences.filter(counts).length;
    if (options.json === true) {
      const withCounts = differences.map((difference) => ({ ...difference, counts: counts(difference) }));
      const print = { tolerance, counting, leftOut: Object.fromEntries(leftOut), differences: withCounts };
      console.log(JSON.stringify(print, null, 1));
    } else {
      console.log(describe(differences, compared[0].size));
      if (leftOut.size > 0) console.log(`\nLeft out: ${describeLeftOut(leftOut)}`);
    }
    return counting > 0 ? 1 : 0;
  },
};

function findUncommon(a: ResultSet, b: ResultSet): Map<string, string> {
  const reasons = new Map<string, string>();
  for (const name of new Set([...a.keys(), ...b.keys()])) {
    const [left, right] = [a.get(name), b.get(name)];
    const reason = left && right ? incomparable(left, right) : `only in ${left ? "A" : "B"}`;
    if (reason) reasons.set(name, reason);
  }
  return reasons;
}

function describeLeftOut(leftOut: ReadonlyMap<string, string>): string {
  return Array.from(leftOut, ([name, reason]) => `${name} (${reason})`).join("; ");
}

/** Kinds that a reader has to see one by one; of the others the number is enough. */
const LISTED: readonly Difference["kind"][] = ["missing", "drift", "drift within errors", "change", "unjudged"];

function describe(differences: readonly Difference[], experiments: number): string {
  if (differences.length === 0) return `${experiments} experiments, every cell is the same`;
  const listed = LISTED.flatMap((kind) => differences.filter((difference) => difference.kind === kind));
  const table = renderTable(
    ["experiment", "row", "column", "A", "B", "relative", "what it is"],
    listed.map(({ id, row, column, a, b, relative, kind }) => [
      id,
      row,
      column,
      a,
      b,
      relative === null ? "-" : relative.toExponential(1),
      kind,
    ]),
  );
  const summary = [...LISTED, "tolerated" as const, "noise" as const].flatMap((kind) => {
    const { length } = differences.filter((difference) => difference.kind === kind);
    return length > 0 ? [`${length} ${kind}`] : [];
  }).join(", ");
  const counting = differences.filter(counts).length;
  return `${
    listed.length > 0 ? `${table}\n\n` : ""
  }${differences.length} cells differ (${summary}), ${counting} of them count`;
}
