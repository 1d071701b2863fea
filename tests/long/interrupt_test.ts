/** 50 interrupted runs of `quantize`: by signals at random moments, and by files that can't grow. */
import { createRandom } from "../../quant/random.ts";
import { assert } from "../assert.ts";
import { ENDS, interruptAndResume, runWhole } from "../cli/interrupt_quantize.ts";

const MODEL = new URL("../fixtures/gguf/llama_spm.gguf", import.meta.url).pathname;

const METHODS: Readonly<Record<string, readonly string[]>> = {
  search: ["--method", "search"],
  corrected: ["--method", "corrected", "--windows", "2", "--window-tokens", "32"],
};

for (const [method, args] of Object.entries(METHODS)) {
  Deno.test(`quantize --method ${method}: 25 interrupted runs resume to the identical file, with nothing left over`, async () => {
    const run = await runWhole(["--model", MODEL, "--device", "cpu", ...args]);
    const random = createRandom(2026);
    let met = 0;
    for (let i = 0; i < 25; i++) met += await interruptAndResume(run, ENDS[i % ENDS.length], random);
    assert(met >= 20, `${met} interruptions met a run at work, must be 20 or more`);
    console.log(`${method}: ${met} interruptions met a run at work`);
  });
}
