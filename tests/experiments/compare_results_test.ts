import { compareResults, counts, incomparable } from "../../experiments/results/compare_results.ts";
import type { Result, Row } from "../../experiments/results/result.ts";
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
    kind: "drift",
  });
  assertEquals(others, []);
  assertEquals(compareRows(rows(3), rows(4), 0.25).map(({ relative, kind }) => [relative, kind]), [[
    0.25,
    "tolerated",
  ]]);
  assertEquals(compareRows(rows(3), rows(4), 0.249)[0].kind, "drift");
  assertEquals(compareRows(rows(0), rows(1e-300), 0.5)[0].kind, "drift");
  assertEquals(compareRows(rows(-1), rows(1), 1).map(({ relative, kind }) => [relative, kind]), [[2, "drift"]]);
  assertEquals(compareRows(rows(0), rows(0), 0), []);
  assertAlmostEquals(compareRows(rows(100), rows(100.1), 0)[0].relative!, 0.1 / 100.1, 1e-12);
});

Deno.test("compareResults: a number against nothing counts at any tolerance", () => {
  for (const [a, b] of [[3, null], [null, 3]]) {
    const [difference] = compareRows([{ method: "a", bits: a, time: 1 }], [{ method: "a", bits: b, time: 1 }], 1);
    assertEquals([difference.a, difference.b, difference.relative, difference.kind], [a, b, null, "drift"]);
  }
  assertEquals(compareRows([{ method: "a", bits: null, time: 1 }], [{ method: "a", time: 1 }], 0), []);
});

Deno.test("compareResults: a drift within the standard errors says so", () => {
  const columns = [...COLUMNS, { key: "bits_error", label: "±", unit: "" }];
  const compareErrors = (a: number | null, b: number | null) =>
    compareResults(
      byId(makeResult({ columns, rows: [{ method: "a", bits: 10, bits_error: a }] })),
      byId(makeResult({ columns, rows: [{ method: "a", bits: 15, bits_error: b }] })),
      0,
    ).find(({ column }) => column === "bits")!.kind;
  assertEquals(compareErrors(3, 4), "drift within errors");
  assertEquals(compareErrors(3, 3.9), "drift");
  assertEquals(compareErrors(100, null), "drift");
});

Deno.test("compareResults: clock readings are noise where their samples overlap, a change where they don't", () => {
  const timed = (time: number | null, samples?: readonly number[]) =>
    byId(makeResult({
      rows: [{ method: "a", bits: 1, time }],
      ...(samples && { samples: { "a: ms": samples } }),
    }));
  const kindOf = (a: ReturnType<typeof timed>, b: ReturnType<typeof timed>) =>
    compareResults(a, b, 0).map(({ kind }) => kind);
  assertEquals(kindOf(timed(100, [90, 100, 110]), timed(115, [105, 115, 125])), ["noise"]);
  assertEquals(kindOf(timed(100, [99, 100, 101]), timed(115, [114, 115, 116])), ["change"]);
  assertEquals(kindOf(timed(100, [99, 100, 101]), timed(115)), ["unjudged"]);
  assertEquals(kindOf(timed(100), timed(null)), ["change"]);
  assertEquals(kindOf(timed(100, [1]), timed(100, [2])), []);
});

Deno.test("compareResults: another verdict is a drift, or a change where columns are clock readings", () => {
  const { verdict } = makeResult();
  const [a, b] = (["partly", "reproduced"] as const).map((status) => ({ verdict: { ...verdict, status } }));
  const [timed] = compareResults(byId(makeResult(a)), byId(makeResult(b)), 0);
  assertEquals([timed.column, timed.a, timed.b, timed.kind], ["verdict", "partly", "reproduced", "change"]);
  const columns = COLUMNS.slice(0, 2);
  assertEquals(
    compareResults(byId(makeResult({ ...a, columns })), byId(makeResult({ ...b, columns })), 0)[0].kind,
    "drift",
  );
});

Deno.test("counts: what must repeat and doesn't, never a clock reading", () => {
  const kinds = ["missing", "drift", "drift within errors", "tolerated", "change", "noise", "unjudged"] as const;
  const [difference] = compareResults(byId(makeResult()), new Map(), 0);
  assertEquals(kinds.filter((kind) => counts({ ...difference, kind })), ["missing", "drift", "drift within errors"]);
});

Deno.test("incomparable: names another model, seed or setting", () => {
  const { environment, settings } = makeResult();
  assertEquals(incomparable(makeResult(), makeResult({ rows: [] })), undefined);
  const model = { name: "tiny", sha256: "other" };
  assertEquals(incomparable(makeResult(), makeResult({ environment: { ...environment, model } })), "another model");
  assertEquals(incomparable(makeResult(), makeResult({ environment: { ...environment, seed: 2 } })), "another seed");
  const other = makeResult({ settings: { ...settings, windows: 5, more: 1 } });
  assertEquals(incomparable(makeResult(), other), "other settings: windows, more");
  assertEquals(incomparable(other, makeResult()), "other settings: windows, more");
});

const missing = (row: string, column: string, a: string, b: string) => ({
  id: "made_up",
  row,
  column,
  a,
  b,
  relative: null,
  kind: "missing" as const,
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
