import { evaluateModel } from "../../../model/evaluate/evaluation.ts";
import type { Scorer, WindowTask } from "../../../model/evaluate/scorer.ts";
import { assertEquals } from "../../assert.ts";

Deno.test("evaluateModel: windows that are measured in KL divergence are spread evenly; by hand", async () => {
  const comparedOf = async (divergenceWindows: number, count: number) => {
    let found: readonly WindowTask[] = [];
    const scorer: Pick<Scorer, "scoreWindows" | "scoreChoices"> = {
      scoreWindows(tasks) {
        found = tasks;
        const score = { negativeLogLikelihood: Float32Array.of(1), top1: Uint8Array.of(1) };
        return Promise.resolve(
          tasks.map(({ reference }) => reference === "none" ? score : { ...score, divergence: Float32Array.of(0) }),
        );
      },
      scoreChoices: () => Promise.resolve([]),
    };
    const windows = { text: "text", windows: Array.from({ length: count }, () => new Uint32Array(2)), textTokens: 0 };
    await evaluateModel(scorer as Scorer, { windows, choices: undefined, divergenceWindows }, "compared");
    return found.filter(({ reference }) => reference === "compare").map(({ index }) => index);
  };
  assertEquals(await comparedOf(5, 320), [0, 64, 128, 192, 256]);
  assertEquals(await comparedOf(2, 5), [0, 3]);
  assertEquals(await comparedOf(8, 4), [0, 1, 2, 3]);
});
