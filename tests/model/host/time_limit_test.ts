import { createTimeLimit } from "../../../model/host/time_limit.ts";
import { parseTokenizer } from "../../../model/text/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";

/** A tokenizer of one letter whose text is split by a pattern. */
function tokenizerOf(pattern: string) {
  const definition = JSON.stringify({
    model: { type: "BPE", vocab: { a: 0 }, merges: [] },
    pre_tokenizer: { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated" },
  });
  return parseTokenizer("m", { definition, settings: undefined });
}

Deno.test("createTimeLimit: gives the result, throws what is thrown, and works again afterwards", () => {
  const limit = createTimeLimit("f");
  assertEquals(limit(1, () => [7]), [7]);
  assertThrows(() => limit(1, () => JSON.parse("{")), SyntaxError, "JSON");
  assertEquals(limit(1, () => limit(2, () => 8)), 8);
});

for (
  const [what, pattern] of [
    // 3,000 choices of each of three ends: 2.7e10 steps.
    ["many ends", "a*a*a*a*b"],
    ["the square of the text within the square of it", "(?=a*a*b)c|(?=a*a*c)d|a*a*d"],
  ]
) {
  Deno.test(`encode: a pattern that takes ${what} ends in time, and the next text is encoded`, () => {
    const tokenizer = tokenizerOf(pattern);
    const startMs = performance.now();
    assertThrows(
      () => tokenizer.encode("a".repeat(3000)),
      SyntaxError,
      "m/tokenizer.json takes more than 4.3 s for 3000 characters, must take less",
    );
    assert(performance.now() - startMs < 10_000);
    assertEquals([...tokenizer.encode("aa")], [0, 0]);
  });
}
