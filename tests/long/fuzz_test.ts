/** 20,000 damaged files for every reader: some minutes each. */
import { createRandom } from "../../quant/random.ts";
import { assert } from "../assert.ts";
import { fuzz, READERS } from "../model/files/fuzz_readers.ts";
import { inDirectory } from "../temporary.ts";

const CASES = 20_000;

for (const [name, create] of Object.entries(READERS)) {
  Deno.test(`fuzz: ${CASES} damaged files for ${name}`, () =>
    inDirectory(async (directory) => {
      const refused = await fuzz(await create(directory), CASES, createRandom(2026));
      assert(refused > CASES / 20 && refused < CASES, `${refused} of ${CASES} were refused`);
    }));
}
