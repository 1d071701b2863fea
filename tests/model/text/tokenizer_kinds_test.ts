import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { assert, assertEquals } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** Made by Python's tokenizers 0.23 (tests/fixtures/make_tokenizer_kinds.py). */
interface Expected {
  /** tokenizer.json by name. */
  readonly bases: Readonly<Record<string, { readonly model: object }>>;
  readonly lines: readonly string[];
  /** A base with other parts: ids of each line, and their decoded texts. */
  readonly kinds: readonly {
    readonly base: string;
    readonly parts: { readonly model?: object };
    readonly ids: readonly (readonly number[])[];
    readonly texts: readonly string[];
  }[];
}

const { bases, lines, kinds } = await readJson<Expected>("tokenizer_kinds.json");

Deno.test("readTokenizer: every part of tokenizer.json does what Python's tokenizers do", async () => {
  assert(kinds.length > 100 && lines.length > 90);
  for (const { base, parts, ids, texts } of kinds) {
    const definition = { ...bases[base], ...parts, model: { ...bases[base].model, ...parts.model } };
    const readText = (file: string) =>
      Promise.resolve(file === "tokenizer.json" ? JSON.stringify(definition) : undefined);
    const tokenizer = await readTokenizer({ name: base, readText });
    for (const [i, line] of lines.entries()) {
      const what = `${JSON.stringify(line)} by ${JSON.stringify(parts).slice(0, 300)}`;
      assertEquals(Array.from(tokenizer.encode(line)), ids[i], `tokens of ${what}`);
      assertEquals(tokenizer.decode(ids[i]), texts[i], `text of the tokens of ${what}`);
    }
  }
});
