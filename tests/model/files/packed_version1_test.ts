// Files of version 1, whose rows are padded to whole blocks of 128 channels.
import { bytesSource } from "../../../model/files/byte_source.ts";
import { readPackedShapes, readPackedTensor } from "../../../model/files/packed_file.ts";
import { fromVersion1, planeShapeOfVersion1 } from "../../../model/files/packed_version1.ts";
import { readSafetensorsHeader, type SafetensorsFile } from "../../../model/files/safetensors.ts";
import { dequantize } from "../../../quant/dequantize.ts";
import { BASE_ZEROS, REFINE_EVERY, REFINED_ZEROS, type RefineEvery } from "../../../quant/format.ts";
import { pack } from "../../../quant/pack.ts";
import { type PackedTensor, validatePackedTensor } from "../../../quant/packed_tensor.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { readF32 } from "../../fixture.ts";
import { assertSameBits, assertSameTensor, randomUnpacked } from "../../quant/helpers.ts";

/** The constants that files of version 1 state; the fixture was written without most of them. */
const METADATA = {
  format: "twobit",
  version: "1",
  group_channels: "16",
  block_groups: "8",
  tile_rows: "16",
  base_zeros: JSON.stringify(BASE_ZEROS),
  refined_zeros: JSON.stringify(REFINED_ZEROS),
};

async function openFixture(): Promise<SafetensorsFile> {
  const name = "packed_version1.safetensors";
  const bytes = await Deno.readFile(new URL(`../../fixtures/${name}`, import.meta.url));
  const file = await readSafetensorsHeader(bytesSource(name, bytes));
  return { ...file, metadata: { ...METADATA, tensors: file.metadata.tensors } };
}

Deno.test("version 1: a file is read with the weights that numpy found in it (tests/fixtures/read_packed.py)", async () => {
  const file = await openFixture();
  const expected = await readF32("packed_version1.f32");
  let at = 0;
  let padded = 0;
  for (const [name, shape] of readPackedShapes(file)) {
    const tensor = await readPackedTensor(file, name, shape);
    validatePackedTensor(tensor);
    const weights = dequantize(tensor);
    assertSameBits(weights, expected.slice(at, at + weights.length), name);
    at += weights.length;
    padded += Number(Math.ceil(shape.channels / 64) % 2);
  }
  assertEquals(at, expected.length);
  assertEquals(padded, 4);
});

Deno.test("version 1: other versions, and constants of the other version, are refused", async () => {
  const file = await openFixture();
  const read = (changes: Record<string, string>) =>
    readPackedShapes({ ...file, metadata: { ...METADATA, ...changes } });
  assertThrows(() => read({ version: "3" }), SyntaxError, "version is 3, must be 1 or 2");
  assertThrows(() => read({ block_groups: "4" }), SyntaxError, "block_groups is 4, must be 8");
  assertThrows(() => read({ version: "2" }), SyntaxError, "half_block_groups is missing, must be 4");
  const [[name, shape]] = readPackedShapes(file);
  await assertRejects(
    () => readPackedTensor({ ...file, metadata: { ...file.metadata, version: "2" } }, name, shape),
    SyntaxError,
    "t0.base is U32 [5, 1, 8], must be U32 [5, 2, 4]",
  );
});

/** Rows of `words` elements made `paddedWords` long with what version 1 may have had there. */
function lengthenRows(
  plane: Uint32Array<ArrayBuffer>,
  [words, paddedWords]: readonly [number, number],
  padding: (row: number, word: number) => number,
): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length: words === 0 ? 0 : (plane.length / words) * paddedWords }, (_, i) => {
    const [row, word] = [Math.floor(i / paddedWords), i % paddedWords];
    return word < words ? plane[row * words + word] : padding(row, word);
  });
}

/** A tensor with an odd number of half blocks as version 1 had it, with padding of any legal content. */
function asVersion1(tensor: PackedTensor, seed: number): PackedTensor {
  const { rows, channels, refineEvery } = tensor;
  const random = createRandom(seed);
  const anyWord = () => random.integer(2 ** 32);
  const groups = 4 * Math.ceil(channels / 64);
  const runs = refineEvery === "none" ? [0, 0] as const : [groups, groups + 4].map((g) => Math.ceil(g / refineEvery));
  const isLong = refineEvery === 16 || refineEvery === 8;
  const left = isLong ? groups % refineEvery : 0;
  const limit = { none: 1, 1: 1, 2: 4, 4: 4, 8: 8, 16: 16 }[refineEvery];
  const meta = lengthenRows(tensor.meta, [groups / 4, groups / 4 + 1], (row) => {
    const pick = isLong ? tensor.meta[(row + 1) * (groups / 4) - 1] >>> 28 : random.integer(limit);
    return random.integer(2 ** 28) + pick * 2 ** 28;
  });
  const refine = lengthenRows(tensor.refine, [runs[0], runs[1]], anyWord);
  const perRow = groups / 4 + 1;
  for (let row = 0; isLong && row < rows; row++) {
    const end = (row + 1) * perRow;
    if (meta[end - 1] >>> 28 !== left) continue;
    // The refined group of the last run is one of padding.
    const pick = left + random.integer(4);
    for (let at = end - 1 - left / 4; at < end; at++) meta[at] = (meta[at] & 0x0fffffff) | pick << 28;
    refine[((row + 1) * refine.length) / rows - 1] = anyWord();
  }
  const scales = lengthenRows(
    Uint32Array.from(tensor.tileScale.length === 0 ? [] : new Uint16Array(tensor.tileScale.buffer)),
    [
      groups,
      groups + 4,
    ],
    () => random.integer(2 ** 15) % 0x7c00,
  );
  return {
    ...tensor,
    base: lengthenRows(tensor.base, [groups, groups + 4], anyWord),
    refine,
    meta,
    tileScale: new Float16Array(Uint16Array.from(scales).buffer),
  };
}

Deno.test("version 1: without the padding half block a tensor is the same in version 2, whatever was refined there", () => {
  let plain = 0;
  for (const refineEvery of REFINE_EVERY) {
    for (const channels of [16, 64, 130, 192, 300, 576, 960]) {
      const tensor = pack(randomUnpacked(channels, 33, channels, refineEvery, 0.01));
      const old = asVersion1(tensor, channels);
      for (const plane of ["base", "refine", "meta", "tileScale"] as const) {
        const size = planeShapeOfVersion1(plane, tensor, 0).reduce((product, length) => product * length);
        assertEquals(old[plane].length, size, plane);
      }
      const read = fromVersion1(old);
      assertSameTensor(read, tensor);
      assertSameBits(dequantize(read), dequantize(tensor));
      plain += countPlain(tensor, refineEvery);
    }
  }
  assert(plain > 50, `${plain} runs without a refined group`);
});

/** Rows whose last run has no refined group. */
function countPlain({ meta, rows, channels }: PackedTensor, refineEvery: RefineEvery): number {
  const left = refineEvery === "none" ? 0 : (4 * Math.ceil(channels / 64)) % refineEvery;
  const words = meta.length / rows;
  return Array.from({ length: rows }, (_, row) => meta[(row + 1) * words - 1] >>> 28)
    .filter((pick) => left > 0 && pick === left).length;
}

Deno.test("version 1: a pick beyond the row is refused", () => {
  const tensor = pack(randomUnpacked(5, 16, 192, 8, 0));
  const old = asVersion1(tensor, 1);
  old.meta[2] = (old.meta[2] & 0x0fffffff) | 8 << 28;
  assertThrows(() => validatePackedTensor(fromVersion1(old)), RangeError, "row 0: pick field of meta word 2 is 8");
});
