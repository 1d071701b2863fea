import { loadModel, openModel } from "../../../model/load.ts";
import { readCalibration, shareWindows } from "../../../model/quantize/calibration_text.ts";
import { CALIBRATION_TEXTS, splitCalibration } from "../../../model/text/calibration_names.ts";
import { loadText } from "../../../model/text/text.ts";
import { sampleWindows } from "../../../model/text/windows.ts";
import { calibrationSize } from "../../../quant/recipe.ts";
import { assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

const PLAN = {
  ...{ seed: 1, path: "nowhere", sourceSha256: "", windowTokens: 32 },
  ...{ gpu: undefined, signal: undefined, onProgress: () => {} },
};

Deno.test("splitCalibration: names joined by +, which may be part of a path, and each known name at most once", () => {
  for (const name of [...CALIBRATION_TEXTS, "file:c++.txt", "file:a+b", "file:mixed+selfish"]) {
    assertEquals(splitCalibration(name), [name]);
  }
  assertEquals(splitCalibration("mix+self"), ["mix", "self"]);
  assertEquals(splitCalibration("file:a+b+mix"), ["file:a+b", "mix"]);
  assertEquals(splitCalibration("self+file:c+++file:d+c4"), ["self", "file:c++", "file:d", "c4"]);
  for (const name of ["", "sotu", "mix+", "+mix", "mix+sotu", "mix+mix", "file:", "file:+mix", "wikitext2:f", "Mix"]) {
    assertThrows(() => splitCalibration(name), RangeError, `calibration is ${name}, must be mix, self, calibration, `);
  }
});

Deno.test("shareWindows: self beside others has a quarter, the others share the rest", () => {
  const shares = (names: string, windows: number) => [...shareWindows(names.split("+"), windows).values()];
  assertEquals([shares("mix", 7), shares("self", 7)], [[7], [7]]);
  assertEquals([shares("mix+self", 448), shares("self+mix", 128)], [[336, 112], [32, 96]]);
  assertEquals([shares("a+b", 7), shares("a+self+b", 40)], [[4, 3], [15, 10, 15]]);
  assertEquals([shares("mix+self", 1), shares("a+b", 1)], [[1, 0], [1, 0]]);
});

Deno.test("calibrationSize: 448 windows on a GPU below a billion weights, 128 from there on, 40 elsewhere", () => {
  const windows = [calibrationSize(true, 1e9 - 1), calibrationSize(true, 1e9), calibrationSize(false, 1)];
  assertEquals(windows.map((size) => [size.windows, size.windowTokens]), [[448, 512], [128, 512], [40, 512]]);
});

Deno.test("readCalibration: joined texts take turns, each with its share, and windows of a short one overlap", () =>
  inDirectory(async (directory) => {
    using checkpoint = await openModel("tiny");
    const { tokenizer } = await loadModel("tiny");
    const own = `file:${directory}/own`;
    await Deno.writeTextFile(`${directory}/own`, "one two three ".repeat(2000));
    const alone = async (name: string, count: number) =>
      sampleWindows(await loadText(name), tokenizer, { length: 32, count }).windows;
    const joined = await readCalibration(checkpoint, { ...PLAN, calibration: `${own}+mix`, windows: 7 });
    const [owns, mixes] = [await alone(own, 4), await alone("mix", 3)];
    assertEquals(joined, [0, 1, 2, 3].flatMap((i) => [owns[i], ...mixes.slice(i, i + 1)]));
    await Deno.writeTextFile(`${directory}/own`, "one two three ".repeat(40));
    const few = await readCalibration(checkpoint, { ...PLAN, calibration: `${own}+mix`, windows: 200 });
    // Behind BOS stand 31 tokens.
    const most = Math.floor(2 * tokenizer.encode("one two three ".repeat(40)).length / 31);
    assertEquals(few.length, 100 + (await alone(own, most)).length);
    await Deno.writeTextFile(`${directory}/own`, "too short");
    await assertRejects(
      () => readCalibration(checkpoint, { ...PLAN, calibration: `${own}+mix`, windows: 7 }),
      RangeError,
      `text ${own} has no document of`,
    );
  }));
