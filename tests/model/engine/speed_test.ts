import type { EngineWeights } from "../../../model/engine/engine_weights.ts";
import type { Session } from "../../../model/engine/session.ts";
import { measurePrompt } from "../../../model/engine/speed.ts";
import { assert, assertEquals } from "../../assert.ts";

/** A session whose first prompt takes 400 ms, as pipelines are compiled, and others `laterMs`. */
function createFake(laterMs: number) {
  let runs = 0;
  const session = {
    lengths: [0],
    prefill: () => new Promise<void>((resolve) => setTimeout(resolve, runs++ === 0 ? 400 : laterMs)),
    truncate() {},
  };
  return { session: session as unknown as Session, count: () => runs };
}

const WEIGHTS = { config: { vocabulary: 16 } } as EngineWeights;

Deno.test("prompts: the run that compiles is discarded, then it warms up, then nine short runs are measured", async () => {
  const { session, count } = createFake(50);
  const speeds = await measurePrompt(session, WEIGHTS, 8);
  assertEquals(speeds.length, 9);
  // 300 ms of runs of 50 ms and more, between the first one and those measured.
  assert(count() > 1 + 1 + 9 && count() <= 1 + 6 + 9, `${count()} runs`);
});

Deno.test("prompts: five runs that take a second are measured, or as many as asked for", async () => {
  const slow = createFake(1010);
  assertEquals((await measurePrompt(slow.session, WEIGHTS, 8)).length, 5);
  // The first one, one to warm up, five.
  assertEquals(slow.count(), 7);
  assertEquals((await measurePrompt(createFake(400).session, WEIGHTS, 8, 2)).length, 2);
});
