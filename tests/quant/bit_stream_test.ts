import fc from "fast-check";
import { packBits, unpackBits } from "../../quant/bit_stream.ts";
import { assertEquals, assertThrows } from "../assert.ts";
import { assertSameBits } from "./helpers.ts";

Deno.test("packBits: by hand", () => {
  // 3 bits each, from bit 0: 001, 110, 011 -> 011 110 001 = 0 1111 0001
  assertEquals([...packBits(Uint8Array.of(1, 6, 3), [3])], [0xf1, 0x00]);
  assertEquals([...packBits(Uint8Array.of(1, 6, 7), [3])], [0xf1, 0x01]);
  // Widths 3, 3, 4, 3: 101, 001, 1111, 010 -> 0 1011 11 | 11 001 101
  assertEquals([...packBits(Uint8Array.of(5, 1, 15, 2), [3, 3, 4])], [0b11001101, 0b00001011]);
  assertEquals([...packBits(Uint8Array.of(255, 1), [8])], [255, 1]);
  assertEquals(packBits(new Uint8Array(0), [3]).length, 0);
});

Deno.test("unpackBits: is the inverse of packBits for all widths", () => {
  const values = fc.array(fc.tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 8 })));
  fc.assert(
    fc.property(values, (pairs) => {
      const widths = pairs.map(([, width]) => width);
      const fitting = Uint8Array.from(pairs, ([value, width]) => value & ((1 << width) - 1));
      const bytes = packBits(fitting, widths);
      assertEquals(bytes.length, Math.ceil(pairs.reduce((sum, [, width]) => sum + width, 0) / 8));
      assertSameBits(unpackBits(bytes, fitting.length, widths), fitting);
    }),
    { seed: 7, numRuns: 500 },
  );
});

Deno.test("packBits: refuses a value that doesn't fit", () => {
  assertThrows(() => packBits(Uint8Array.of(3, 4), [2]), RangeError, "value 1 is 4, must fit 2 bits");
});
