import { Sequences } from "../../../model/engine/sequences.ts";
import { NOT_A_NUMBER_TOKEN } from "../../../kernels/tokens/sampler.ts";
import { assertEquals, assertThrows } from "../../assert.ts";

Deno.test("sequences: what was taken in and chosen is known, and goes on from where it is truncated", () => {
  const known = new Sequences(2, 10, 100);
  known.append(1, Uint32Array.of(5, 6, 7));
  assertThrows(() => known.next(1), RangeError, "no token is known at position 3 of sequence 1");
  assertEquals(known.learn(1, Uint32Array.of(8)), undefined);
  assertEquals([known.lengths, known.next(1)], [[0, 3], 8]);
  known.advance(1, 2);
  known.learn(1, Uint32Array.of(9, 10));
  assertEquals([known.lengths, known.next(1)], [[0, 5], 10]);
  known.truncate(1, 2);
  assertEquals([known.lengths, known.next(1)], [[0, 2], 7]);
  known.append(1, Uint32Array.of(50));
  assertThrows(() => known.next(1), RangeError, "position 3");
  known.setNext(1, 99);
  assertEquals([known.lengths, known.next(1)], [[0, 3], 99]);
  assertThrows(() => known.setNext(0, 100), RangeError, "token 0 of sequence 0 is 100, must be below 100");
  assertThrows(() => known.setNext(2, 1), RangeError, "sequences are 2, must be some of 0 to 1");
});

Deno.test("sequences: tokens that were chosen but never read are missing, and those after them keep their places", () => {
  const known = new Sequences(1, 10, 100);
  known.append(0, Uint32Array.of(5));
  known.learn(0, Uint32Array.of(6));
  known.advance(0, 3);
  assertThrows(() => known.checkNext(0, 1), RangeError, "no token is known at position 4, must have a prompt before");
  known.append(0, Uint32Array.of(7, 8));
  known.learn(0, Uint32Array.of(9));
  assertEquals([known.lengths, known.next(0)], [[6], 9]);
  known.truncate(0, 4);
  assertEquals(known.next(0), 7);
  known.truncate(0, 3);
  assertThrows(() => known.next(0), RangeError, "no token is known at position 3");
  known.truncate(0, 1);
  assertEquals(known.next(0), 6);
});

Deno.test("sequences: one ends before the first token that is none", () => {
  const known = new Sequences(1, 10, 100);
  known.append(0, Uint32Array.of(5, 6));
  known.learn(0, Uint32Array.of(7));
  known.advance(0, 3);
  const error = known.learn(0, Uint32Array.of(8, NOT_A_NUMBER_TOKEN, 9));
  assertEquals(error?.message, "logits at position 3 are not numbers, keys, values and weights must lie within f16");
  assertEquals(known.lengths, [4]);
  assertThrows(() => known.next(0), RangeError, "no token is known at position 4");
  known.truncate(0, 3);
  assertEquals(known.next(0), 8);
});
