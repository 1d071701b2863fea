/** A few of the damaged files of `deno task test:long` for every reader. */
import { createRandom } from "../../../quant/random.ts";
import { assert } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";
import { fuzz, READERS } from "./fuzz_readers.ts";

for (const [name, create] of Object.entries(READERS)) {
  const cases = name === "template" ? 1000 : 500;
  Deno.test(`fuzz: ${cases} damaged files for ${name} are refused in one short line, or read as they promise`, () =>
    inDirectory(async (directory) => {
      const refused = await fuzz(await create(directory), cases, createRandom(5));
      assert(refused > cases / 20 && refused < cases, `${refused} of ${cases} were refused`);
    }));
}
