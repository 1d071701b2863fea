import { parseTokenizer, type Tokenizer } from "../../../model/text/tokenizer.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";
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
  /** Parts of the base `bytes`, and ids that are put before a text. */
  readonly prefixes: readonly { readonly parts: object; readonly prefix: readonly number[] }[];
}

const { bases, lines, kinds, prefixes } = await readJson<Expected>("tokenizer_kinds.json");

/** Makes a tokenizer of a base with other parts. */
function make(base: string, parts: object, settings?: object): Tokenizer {
  const whole: Readonly<Record<string, unknown>> = { ...bases[base], ...parts };
  const definition = { ...whole, model: { ...bases[base].model, ...whole.model as object } };
  return parseTokenizer("m", {
    definition: JSON.stringify(definition),
    settings: settings && JSON.stringify(settings),
  });
}

Deno.test("readTokenizer: every part of tokenizer.json does what Python's tokenizers do", () => {
  assert(kinds.length > 100 && lines.length > 90);
  for (const { base, parts, ids, texts } of kinds) {
    const tokenizer = make(base, parts);
    for (const [i, line] of lines.entries()) {
      const what = `${JSON.stringify(line)} by ${JSON.stringify(parts).slice(0, 300)}`;
      assertEquals(Array.from(tokenizer.encode(line)), ids[i], `tokens of ${what}`);
      assertEquals(tokenizer.decode(ids[i]), texts[i], `text of the tokens of ${what}`);
    }
  }
});

Deno.test("parseTokenizer: before a text stands what the post-processor puts there", () => {
  assert(prefixes.length > 10);
  for (const { parts, prefix } of prefixes) {
    assertEquals(Array.from(make("bytes", parts).prefix), prefix, JSON.stringify(parts));
    // As in transformers 5.24, an explicit setting changes nothing where the post-processor speaks of special tokens.
    if (prefix.length > 0) assertEquals(Array.from(make("bytes", parts, { add_bos_token: false }).prefix), prefix);
  }
});

Deno.test("parseTokenizer: without a word of the post-processor BOS is put by add_bos_token alone", () => {
  const parts = { added_tokens: prefixes[0].parts["added_tokens" as never], post_processor: null };
  const [{ prefix }] = prefixes;
  const prefixOf = (settings: object) => Array.from(make("bytes", parts, settings).prefix);
  assertEquals(prefixOf({ bos_token: "<s>" }), []);
  assertEquals(prefixOf({ bos_token: "<s>", add_bos_token: false }), []);
  assertEquals(prefixOf({ bos_token: "<s>", add_bos_token: true }), prefix);
  assertEquals(prefixOf({ bos_token: { content: "<s>" }, add_bos_token: true }), prefix);
  assertThrows(
    () => prefixOf({ bos_token: "<t>", add_bos_token: true }),
    SyntaxError,
    'm/tokenizer.json: add_bos_token puts "<t>"',
  );
  assertThrows(() => prefixOf({ add_bos_token: true }), SyntaxError, "must be one of the vocabulary");
});

const template = (ids: unknown) => ({
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "x", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    special_tokens: { x: { id: "x", ids, tokens: ["x"] } },
  },
});
const added = (more: object) => ({ added_tokens: [{ id: 420, content: "<new>", special: true, ...more }] });
const split = (pattern: object, more: object = {}) => ({
  pre_tokenizer: { type: "Split", pattern, behavior: "Isolated", invert: false, ...more },
});
const doubling = Array.from({ length: 30 }, () => ({ type: "Replace", pattern: { Regex: "." }, content: "xx" }));

const REFUSED: readonly (readonly [what: string, parts: object, message: string])[] = [
  ["an id that fills the memory", { model: { vocab: { a: 4294967294 }, merges: [] } }, 'token "a" has id 4294967294'],
  ["an id that is no number", { model: { vocab: { a: "0" }, merges: [] } }, 'token "a" has id "0"'],
  ["a negative id", { model: { vocab: { a: -1 }, merges: [] } }, 'token "a" has id -1'],
  ["an id that two tokens have", { model: { vocab: { a: 0, b: 0 }, merges: [] } }, 'tokens "a" and "b" have id 0'],
  ["an added token with another id", added({ content: "a" }), 'token "a" has ids'],
  ["an added token with another's id", added({ id: 3 }), "have id 3, must differ"],
  ["an added token without a text", added({ content: null }), "content is null, must be a text"],
  ["a flag that is no boolean", added({ lstrip: "yes" }), 'lstrip is "yes", must be true or false'],
  ["an unknown token that isn't there", { model: { unk_token: "<nope>" } }, 'unk_token is "<nope>"'],
  ["a merge of tokens that aren't there", { model: { merges: ["zz yy"] } }, 'merge "zz yy" must be of two tokens'],
  ["a merge of three", { model: { merges: ["a b c"] } }, 'merge "a b c" must be of two tokens'],
  ["another kind of model", { model: { type: "Unigram", vocab: {} } }, 'type "Unigram", must be BPE'],
  ["dropout", { model: { dropout: 0.1 } }, "dropout is 0.1, must be null"],
  ["a prefix within words", { model: { continuing_subword_prefix: "##" } }, 'continuing_subword_prefix is "##"'],
  [
    "an unknown pre-tokenizer",
    { pre_tokenizer: { type: "FixedLength", length: 0 } },
    'pre_tokenizer has type "FixedLength"',
  ],
  ["an unknown behavior", split({ String: " " }, { behavior: "Elsewhere" }), 'behavior is "Elsewhere", must be one of'],
  ["an unknown normalizer", { normalizer: { type: "Precompiled" } }, 'normalizer has type "Precompiled"'],
  [
    "normalizers without end",
    { normalizer: { type: "Sequence", normalizers: new Array(1e5).fill({ type: "NFC" }) } },
    "has 100000 parts",
  ],
  [
    "a sequence in a sequence",
    { decoder: { type: "Sequence", decoders: [{ type: "Sequence", decoders: [] }] } },
    "must have none within another",
  ],
  [
    "an added token of a million characters",
    added({ content: "x".repeat(2 ** 20) + "y" }),
    "string of 1048577 characters",
  ],
  [
    "added tokens of millions",
    { added_tokens: [0, 1, 2].map((i) => ({ id: 420 + i, content: i + "x".repeat(5e5) })) },
    "have more than 1048576 characters",
  ],
  ["an unknown decoder", { decoder: { type: "CTC" } }, 'decoder has type "CTC"'],
  ["an unknown post-processor", { post_processor: { type: "X" } }, 'post_processor has type "X"'],
  [
    "a special token that isn't there",
    template([4000]),
    "puts token 4000 before a text, must be one of the vocabulary",
  ],
  ["a special token without ids", template(undefined), "ids is undefined, must be a list"],
  [
    "a special token of thousands",
    template(new Array(5000).fill(0)),
    "puts 5000 tokens before a text, must put at most 4",
  ],
  ["a pattern that may not end", split({ Regex: "(a+)+$" }), "must not repeat a group that repeats or chooses"],
  ["a pattern that chooses without end", split({ Regex: "(?:a|ab)*c" }), "must not repeat a group"],
  ["a pattern that is none", split({ Regex: "(" }), "pattern cannot be used"],
  ["a pattern of megabytes", split({ Regex: "a".repeat(2 ** 19) }), "must be a String or a Regex"],
  ["an empty pattern", split({ String: "" }), "must be a String or a Regex, not empty"],
];

for (const [what, parts, message] of REFUSED) {
  Deno.test(`parseTokenizer: ${what} is refused in one short line`, () => {
    const error = assertThrows(() => make("bytes", parts), SyntaxError, message);
    assert(error.message.includes("m/tokenizer.json") && error.message.length < 300, error.message);
  });
}

Deno.test("encode: a normalizer that doubles the text again and again is refused before memory is full", () => {
  const tokenizer = make("bytes", { normalizer: { type: "Sequence", normalizers: doubling } });
  assertThrows(() => tokenizer.encode("the cat sat"), SyntaxError, "normalizer makes more than 4448 characters of 11");
  // The longest normal form of one character.
  assertEquals(make("bytes", { normalizer: { type: "NFKD" } }).encode("\ufdfa".repeat(9)).length > 100, true);
});
