import { readResult, readResults, writeResult } from "../../experiments/results/result.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";
import { makeResult } from "./make_result.ts";

Deno.test("writeResult and readResult: what is written reads back, rounded to 7 digits", () =>
  inDirectory(async (directory) => {
    const rows = [{ method: "a", bits: 1 / 3, time: 123456789.75 }, { method: "b", bits: 1234567890, time: null }];
    const result = makeResult({ rows, samples: { time: [0.1, 2e-9 / 3] } });
    const path = await writeResult(directory, result);
    assertEquals(path, `${directory}/made_up.json`);
    assertEquals(filesIn(directory), ["made_up.json"]);
    const rounded = [{ method: "a", bits: 0.3333333, time: 123456800 }, { method: "b", bits: 1234567890, time: null }];
    assertEquals(await readResult(path), { ...result, rows: rounded, samples: { time: [0.1, 6.666667e-10] } });
    // Once rounded, always the same.
    const text = await Deno.readTextFile(path);
    await writeResult(directory, await readResult(path));
    assertEquals(await Deno.readTextFile(path), text);
  }));

for (const value of [NaN, Infinity, -Infinity]) {
  Deno.test(`writeResult: refuses ${value} in a row and leaves what was there`, () =>
    inDirectory(async (directory) => {
      await writeResult(directory, makeResult());
      const before = await Deno.readTextFile(`${directory}/made_up.json`);
      const rows = [{ method: "a", bits: 1, time: null }, { method: "b", bits: value, time: null }];
      await assertRejects(
        () => writeResult(directory, makeResult({ rows })),
        RangeError,
        `made_up: row 1 has bits ${value}, must be finite`,
      );
      assertEquals(filesIn(directory), ["made_up.json"]);
      assertEquals(await Deno.readTextFile(`${directory}/made_up.json`), before);
    }));
}

Deno.test("readResult: files that aren't results are refused by name and reason", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/x.json`;
    const { verdict, columns, rows, id, ...rest } = makeResult();
    const whole = { ...rest, id, columns, rows, verdict };
    const cases: readonly (readonly [text: string, message: string])[] = [
      ["", "is not valid JSON"],
      ["{", "is not valid JSON"],
      ["null", "schema is undefined, must be 1"],
      ["[]", "schema is undefined, must be 1"],
      ["3", "schema is undefined, must be 1"],
      [JSON.stringify({ ...whole, schema: 2 }), "schema is 2, must be 1"],
      [JSON.stringify({ ...whole, schema: "1" }), 'schema is "1", must be 1'],
      [JSON.stringify({ ...rest, columns, rows, verdict }), "id, columns or rows are missing"],
      [JSON.stringify({ ...rest, id, rows, verdict }), "id, columns or rows are missing"],
      [JSON.stringify({ ...rest, id, columns, rows: {}, verdict }), "id, columns or rows are missing"],
      [JSON.stringify({ ...rest, id, columns, rows }), "verdict status is undefined, must be one of reproduced"],
      [JSON.stringify({ ...whole, verdict: { ...verdict, status: "ok" } }), 'verdict status is "ok", must be one of'],
    ];
    for (const [text, message] of cases) {
      await Deno.writeTextFile(path, text);
      const error = await assertRejects(() => readResult(path), SyntaxError, message, text);
      assertEquals(error.message.includes(path), true);
    }
    await assertRejects(() => readResult(`${directory}/none.json`), Deno.errors.NotFound);
  }));

Deno.test("readResults: every .json of a directory, by id, in the order of names; nothing else", () =>
  inDirectory(async (directory) => {
    for (const id of ["b", "a", "c"]) await writeResult(directory, makeResult({ id }));
    await Deno.writeTextFile(`${directory}/a.md`, "");
    await Deno.mkdir(`${directory}/d.json`);
    assertEquals([...(await readResults(directory)).keys()], ["a", "b", "c"]);
    await Deno.writeTextFile(`${directory}/e.json`, "{}");
    await assertRejects(() => readResults(directory), SyntaxError, "e.json: schema is undefined");
    await assertRejects(() => readResults(`${directory}/none`), Deno.errors.NotFound);
  }));
