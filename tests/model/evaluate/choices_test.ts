import { drawChoices, judgeChoices } from "../../../model/evaluate/choices.ts";
import type { Tokenizer } from "../../../model/text/tokenizer.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";

/** Each token is its own position in the text, so a piece says where it was taken from. */
const POSITIONS = Uint32Array.from({ length: 5000 }, (_, i) => i);

const BOS = 9999;

/** Token 3 is nothing, all others are the two bytes of é. */
const TOKENIZER: Tokenizer = {
  encode: () => new Uint32Array(0),
  decode: (tokens) => Array.from(tokens, (token) => token === 3 ? "" : "\u00e9").join(""),
  vocabulary: 5000,
  prefix: Uint32Array.of(BOS),
};

const PLAN = { items: 400, contextTokens: 12, continuationTokens: 5 };

const draw = (seed: number) => drawChoices(POSITIONS, TOKENIZER, PLAN, createRandom(seed));

Deno.test("drawChoices: BOS and consecutive tokens, and the true continuation follows them", () => {
  const { items, answers } = draw(1);
  assertEquals([items.length, answers.length], [400, 400]);
  for (const [i, { context, continuations }] of items.entries()) {
    const start = context[1];
    assertEquals(Array.from(context), [BOS, ...Array.from({ length: 11 }, (_, k) => start + k)]);
    assertEquals(continuations.length, 4);
    assertEquals(Array.from(continuations[answers[i]]), Array.from({ length: 5 }, (_, k) => start + 11 + k));
  }
});

Deno.test("drawChoices: the other continuations are consecutive tokens that overlap neither context nor truth", () => {
  const { items, answers } = draw(1);
  for (const [i, { context, continuations }] of items.entries()) {
    const [first, last] = [context[1], context[1] + 11 + 4];
    for (const [choice, continuation] of continuations.entries()) {
      assertEquals(Array.from(continuation), Array.from({ length: 5 }, (_, k) => continuation[0] + k));
      if (choice !== answers[i]) assert(continuation[4] < first || continuation[0] > last, `item ${i}`);
    }
  }
});

Deno.test("drawChoices: repeats with its seed, differs with another, and puts the truth everywhere", () => {
  const { items, answers } = draw(1);
  assertEquals(draw(1), draw(1));
  assert(draw(2).items.some(({ context }, i) => context[1] !== items[i].context[1]));
  for (let place = 0; place < 4; place++) {
    const count = answers.filter((answer) => answer === place).length;
    // 100 of 400 are expected with a standard deviation of 8.7.
    assert(count > 60 && count < 140, `the truth is ${count} times at ${place}`);
  }
  assert(new Set(items.map(({ context }) => context[1])).size > 350);
});

Deno.test("drawChoices: sizes are bytes of text, at least 1", () => {
  const tokens = new Uint32Array(200).fill(3);
  tokens.fill(4, 100);
  const plan = { items: 50, contextTokens: 3, continuationTokens: 2 };
  const { items, sizes } = drawChoices(tokens, TOKENIZER, plan, createRandom(1));
  for (const [i, { continuations }] of items.entries()) {
    assertEquals(
      sizes[i],
      continuations.map((tokens) => Math.max(1, 2 * tokens.filter((token) => token === 4).length)),
    );
  }
  assert(sizes.flat().includes(1) && sizes.flat().includes(4));
});

Deno.test("drawChoices: a text that is too short is refused", () => {
  const cut = (length: number) => () => drawChoices(POSITIONS.subarray(0, length), TOKENIZER, PLAN, createRandom(1));
  assertThrows(cut(127), RangeError, "text has 127 tokens, must have at least 128 to draw choices from");
  assertEquals(cut(128)().items.length, 400);
});

Deno.test("judgeChoices: the highest log-likelihood a byte wins", () => {
  const continuation = new Uint32Array(1);
  const item = { context: continuation, continuations: [continuation, continuation, continuation, continuation] };
  const choices = {
    items: [item, item, item],
    answers: Uint8Array.of(2, 0, 3),
    sizes: [[10, 10, 20, 10], [4, 4, 4, 8], [1, 1, 1, 1]],
  };
  // Item 0: -3, -2, -1.9, -4 a byte; item 1: -2, -1.5, -2, -1.4; item 2: -4 at the end, behind -1.
  const scores = [[-30, -20, -38, -40], [-8, -6, -8, -11.2], [-1, -2, -3, -4]];
  assertEquals(Array.from(judgeChoices(choices, scores)), [1, 0, 0]);
});
