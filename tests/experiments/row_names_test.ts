import { assignSamples, nameRows } from "../../experiments/results/row_names.ts";
import type { Column, Row } from "../../experiments/results/result.ts";
import { assertEquals } from "../assert.ts";
import { makeResult } from "./make_result.ts";

const COLUMNS: readonly Column[] = ["model", "layer", "time", "kernel"].map((key) => ({ key, label: key, unit: "" }));

const ROWS: readonly Row[] = [
  { model: "7 B", layer: "o", time: 1, kernel: "fast" },
  { model: "8 B", layer: "o", time: 2, kernel: "fast" },
  { model: "8 B", layer: "o", time: 3, kernel: "fast_too" },
];

Deno.test("nameRows: the texts of a row, numbered where they repeat", () => {
  assertEquals([...nameRows(makeResult({ columns: COLUMNS, rows: ROWS })).keys()], [
    "7 B o fast",
    "8 B o fast",
    "8 B o fast_too",
  ]);
  const same = makeResult({ columns: COLUMNS, rows: [ROWS[0], ROWS[0]] });
  assertEquals([...nameRows(same).keys()], ["7 B o fast", "7 B o fast #2"]);
  // What a clock says in words is no name: the next run says it otherwise.
  const noted = makeResult({
    columns: [...COLUMNS, { key: "note", label: "note", unit: "", timed: true }],
    rows: [{ ...ROWS[0], note: "within noise" }],
  });
  assertEquals([...nameRows(noted).keys()], ["7 B o fast"]);
});

Deno.test("assignSamples: by whole names, parts in their order, with what they are; the rest belongs to the table", () => {
  const samples = {
    "7 B o fast": [1],
    "8 B fast_too: us": [2, 3],
    "8 B fast_too: runs: two": [4],
    "8 B 2": [5],
    "fast o": [6],
    "": [7],
    "curve": [8],
  };
  const { ofRows, others } = assignSamples(makeResult({ columns: COLUMNS, rows: ROWS, samples }));
  assertEquals(ROWS.map((row) => ofRows.get(row)?.map(({ name }) => name)), [
    ["7 B o fast"],
    ["8 B 2"],
    ["8 B fast_too: us", "8 B fast_too: runs: two"],
  ]);
  assertEquals(others.map(({ name }) => name), ["fast o", "", "curve"]);
  assertEquals(assignSamples(makeResult({ rows: ROWS })).others, []);
});

Deno.test("assignSamples: rows that share a name have the samples whose median they state", () => {
  const rows = [...ROWS, { ...ROWS[1], kernel: "slow" }];
  const { ofRows, others } = assignSamples(
    makeResult({ columns: COLUMNS, rows, samples: { "8 B o: us": [1, 2, 9], "o fast: us": [7] } }),
  );
  assertEquals(rows.map((row) => ofRows.get(row)?.map(({ name }) => name)), [undefined, ["8 B o: us"], undefined, [
    "8 B o: us",
  ]]);
  assertEquals(others.map(({ name }) => name), ["o fast: us"]);
});
