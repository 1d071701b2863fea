import { compareResults } from "../../experiments/compare.ts";
import type { Result, Row } from "../../experiments/result.ts";
import { assertAlmostEquals, assertEquals } from "../assert.ts";
import { COLUMNS, makeResult } from "./make_result.ts";

const byId = (...results: Result[]) => new Map(results.map((result) => [result.id, result]));

const compareRows = (a: readonly Row[], b: readonly Row[], tolerance: number) =>
  compareResults(byId(makeResult({ rows: a })), byId(makeResult({ rows: b })), tolerance);

Deno.test("compareResults: equal results, and results of two runs, have no difference", () => {
  const { environment } = makeResult();
  const later = makeResult({ environment: { ...environment, startedAt: "2027-01-01T00:00:00.000Z", dirty: true } });
  assertEquals(compareResults(byId(makeResult()), byId(later), 0), []);
  assertEquals(compareResults(new Map(), new Map(), 0), []);
});

Deno.test("compareResults: numbers count beyond the relative tolerance, and not at it", () => {
  const rows = (bits: number) => [{ method: "a", bits, time: null }];
  const [difference, ...others] = compareRows(rows(4), rows(3), 0);
  assertEquals(difference, {
    id: "made_up",
    row: "a",
    column: "bits",
    a: 4,
    b: 3,
    relative: 0.25,
    counts: true,
  });
  assertEquals(others, []);
  assertEquals(compareRows(rows(3), rows(4), 0.25).map(({ relative, counts }) => [relative, counts]), [[0.25, false]]);
  assertEquals(compareRows(rows(3), rows(4), 0.249)[0].counts, true);
  assertEquals(compareRows(rows(0), rows(1e-300), 0.5)[0].counts, true);
  assertEquals(compareRows(rows(-1), rows(1), 1).map(({ relative, counts }) => [relative, counts]), [[2, true]]);
  assertEquals(compareRows(rows(0), rows(0), 0), []);
  assertAlmostEquals(compareRows(rows(100), rows(100.1), 0)[0].relative!, 0.1 / 100.1, 1e-12);
});

Deno.test("compareResults: a number against nothing counts at any tolerance", () => {
  for (const [a, b] of [[3, null], [null, 3]]) {
    const [difference] = compareRows([{ method: "a", bits: a, time: 1 }], [{ method: "a", bits: b, time: 1 }], 1);
    assertEquals([difference.a, difference.b, difference.relative, difference.counts], [a, b, null, true]);
  }
  assertEquals(compareRows([{ method: "a", bits: null, time: 1 }], [{ method: "a", time: 1 }], 0), []);
});

Deno.test("compareResults: clock readings are listed but never count", () => {
  const found = compareRows([{ method: "a", bits: 1, time: 1 }], [{ method: "a", bits: 1, time: 2 }], 0);
  assertEquals(found.map(({ column, relative, counts }) => [column, relative, counts]), [["time", 0.5, false]]);
  assertEquals(
    compareRows([{ method: "a", bits: 1, time: 1 }], [{ method: "a", bits: 1, time: null }], 0)[0].counts,
    false,
  );
});

const missing = (row: string, column: string, a: string, b: string) => ({
  id: "made_up",
  row,
  column,
  a,
  b,
  relative: null,
  counts: true,
});

Deno.test("compareResults: a missing experiment, row or column is named and counts", () => {
  const whole = makeResult();
  assertEquals(compareResults(byId(whole), new Map(), 1), [missing("", "experiment", "present", "missing")]);
  assertEquals(compareResults(new Map(), byId(whole), 1), [missing("", "experiment", "missing", "present")]);
  const shorter = makeResult({ rows: whole.rows.slice(0, 1) });
  assertEquals(compareResults(byId(whole), byId(shorter), 1), [missing("rtn2", "row", "present", "missing")]);
  assertEquals(compareResults(byId(shorter), byId(whole), 1), [missing("rtn2", "row", "missing", "present")]);
  for (const dropped of ["bits", "time"]) {
    const narrower = makeResult({ columns: COLUMNS.filter(({ key }) => key !== dropped) });
    assertEquals(compareResults(byId(whole), byId(narrower), 1), [missing("", dropped, "present", "missing")]);
    assertEquals(compareResults(byId(narrower), byId(whole), 1), [missing("", dropped, "missing", "present")]);
  }
});

Deno.test("compareResults: rows are found by their texts, in any order; equal texts by their order", () => {
  const rows: Row[] = [{ method: "a", bits: 1, time: 0 }, { method: "b", bits: 2, time: 0 }];
  assertEquals(compareRows(rows, rows.toReversed(), 0), []);
  const twice: Row[] = [{ method: "a", bits: 1, time: 0 }, { method: "a", bits: 2, time: 0 }];
  assertEquals(compareRows(twice, twice, 0), []);
  assertEquals(compareRows(twice, twice.toReversed(), 0).map(({ row, a, b }) => [row, a, b]), [["a", 1, 2], [
    "a #2",
    2,
    1,
  ]]);
});

Deno.test("compareResults: experiments come in alphabetical order", () => {
  const [one, two] = [makeResult({ id: "one" }), makeResult({ id: "two" })];
  const found = compareResults(byId(two, makeResult({ id: "a" })), byId(one), 0);
  assertEquals(found.map(({ id, a }) => [id, a]), [["a", "present"], ["one", "missing"], ["two", "present"]]);
});
