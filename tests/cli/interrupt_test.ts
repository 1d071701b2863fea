import { createRandom } from "../../quant/random.ts";
import { ENDS, interruptAndResume, runWhole } from "./interrupt_quantize.ts";

const MODEL = new URL("../fixtures/gguf/llama_spm.gguf", import.meta.url).pathname;

Deno.test("quantize: interrupted by each signal and by a full disk it resumes to the identical file", async () => {
  const run = await runWhole(["--model", MODEL, "--method", "search", "--device", "cpu"]);
  const random = createRandom(3);
  for (const end of ENDS) await interruptAndResume(run, end, random);
});
