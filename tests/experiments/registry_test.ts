import { EXPERIMENTS, runOrder } from "../../experiments/registry.ts";
import { assert, assertEquals } from "../assert.ts";

Deno.test("runOrder: all experiments once, those of a second first; a quick run without what takes a whole one", () => {
  const [all, quick] = [false, true].map((quick) => runOrder(quick).map(({ id }) => id));
  assertEquals(all.toSorted(), EXPERIMENTS.map(({ id }) => id).toSorted());
  assertEquals(all[0], "ranges");
  const whole = ["calibration", "throughput", "decode_precision"];
  for (const id of whole) assert(all.includes(id));
  assertEquals(quick, all.filter((id) => !whole.includes(id)));
});
