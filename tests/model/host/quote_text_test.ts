import { clipText, quoteText } from "../../../model/host/quote_text.ts";
import { assert, assertEquals } from "../../assert.ts";

Deno.test("quoteText: values as JSON, short, and with nothing that a terminal obeys", () => {
  assertEquals(quoteText("a"), '"a"');
  assertEquals(quoteText({ a: [1, null] }), '{"a":[1,null]}');
  assertEquals(quoteText(undefined), "undefined");
  assertEquals(quoteText(NaN), "null");
  assertEquals(quoteText(12345678901234567890n), '"12345678901234567890"');
  assertEquals(quoteText({ big: 1n }), '{"big":"1"}');
  assertEquals(quoteText("\u001b[31m\n\u2028\u202e\u0085\ufeff"), '"\\u001b[31m\\n\\u{2028}\\u{202e}\\u{85}\\u{feff}"');
  assertEquals(quoteText("\ud800"), '"\\ud800"');
  assertEquals(quoteText("x".repeat(2 ** 24), 10), `"${"x".repeat(9)}...`);
  assertEquals(quoteText(new Array(100_000).fill(1), 10), "[1,1,1,1,1...");
});

Deno.test("clipText: other programs' messages on one line", () => {
  assertEquals(clipText("as it is"), "as it is");
  assertEquals(clipText("two\nlines\r\u001b[0m"), "two\\u{a}lines\\u{d}\\u{1b}[0m");
  assertEquals(clipText("abcdef", 3), "abc...");
  assertEquals(clipText("é👍", 2), "é...");
  for (const text of ["\n".repeat(1000), "\u{e0001}".repeat(1000), "👍".repeat(1000)]) {
    assert(clipText(text).length < 250);
  }
});
