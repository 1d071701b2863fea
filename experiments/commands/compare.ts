/**
 * `deno task compare`: two directories of result files.
 *
 * @module
 */
import { compareResults, type Difference } from "../compare.ts";
import { renderTable } from "../render.ts";
import { readResults } from "../result.ts";
import { type Command, numberOption } from "./command.ts";

/** Compares two directories of result files. */
export const compare: Command = {
  name: "compare",
  summary: "Compares two directories of result files. Exit code 1 when a deterministic cell differs beyond the " +
    "tolerance, or an experiment, row or column is missing on one side. Clock readings are listed but never count.",
  positionals: ["DIR_A", "DIR_B"],
  options: {
    tolerance: { type: "string", value: "F", help: "Largest relative difference that doesn't count (default 0)." },
    json: { type: "boolean", help: "Print the differences as JSON." },
  },
  async run(options, [a, b]) {
    const tolerance = numberOption(options, "tolerance", 0, 0, 1);
    const [left, right] = [await readResults(a), await readResults(b)];
    if (left.size + right.size === 0) throw new Error(`neither ${a} nor ${b} holds result files`);
    const differences = compareResults(left, right, tolerance);
    const counting = differences.filter(({ counts }) => counts).length;
    if (options.json === true) console.log(JSON.stringify({ tolerance, counting, differences }, null, 1));
    else console.log(describe(differences, counting, left.size));
    return counting > 0 ? 1 : 0;
  },
};

function describe(differences: readonly Difference[], counting: number, experiments: number): string {
  if (differences.length === 0) return `${experiments} experiments, every cell is the same`;
  const labels = ["experiment", "row", "column", "A", "B", "relative", "counts"];
  const table = renderTable(
    labels.map((label) => ({ key: label, label, unit: "" })),
    differences.map(({ id, row, column, a, b, relative, counts }) => [
      id,
      row,
      column,
      a,
      b,
      relative === null ? "-" : relative.toExponential(1),
      counts ? "yes" : "no",
    ]),
  );
  return `${table}\n\n${differences.length} cells differ, ${counting} of them count`;
}
