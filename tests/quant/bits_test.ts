import { quantizeStrips } from "../../quant/baselines/strips.ts";
import { addBits, bitsPerWeight, NO_BITS, packedBits, totalBits } from "../../quant/bits.ts";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import { pack } from "../../quant/pack.ts";
import { storedBytes } from "../../quant/quantize.ts";
import {
  greenbitLayout,
  PAPER_LAYOUT,
  plainLayout,
  stripBits,
  type StripLayout,
} from "../../quant/baselines/strip_layout.ts";
import type { StripTensor } from "../../quant/baselines/strip_tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { normals, randomUnpacked } from "./helpers.ts";

const SHAPES: readonly (readonly [rows: number, channels: number])[] = [
  [1, 1],
  [1, 64],
  [1, 128],
  [15, 16],
  [16, 127],
  [17, 129],
  [32, 256],
  [33, 300],
  [48, 384],
  [40, 1000],
  [32, 576],
];

Deno.test("packedBits: 8 x the bytes of packed tensors, every plane", () => {
  for (const [rows, channels] of SHAPES) {
    for (const refineEvery of REFINE_EVERY) {
      for (const share of [0, 0.02, 1]) {
        const tensor = pack(randomUnpacked(rows + channels, rows, channels, refineEvery, share));
        const terms = packedBits(rows, channels, refineEvery, tensor.outlierChannel.length);
        assertEquals(terms.codes, 8 * tensor.base.byteLength);
        assertEquals(terms.refine, 8 * tensor.refine.byteLength);
        assertEquals(terms.scaleCodes + terms.zeroCodes + terms.picks, 8 * tensor.meta.byteLength);
        assertEquals(terms.secondOrder, 8 * tensor.tileScale.byteLength);
        assertEquals(terms.outliers, 8 * (tensor.outlierChannel.byteLength + tensor.outlierResidual.byteLength));
        assertEquals(terms.outlierStarts, 8 * tensor.outlierStart.byteLength);
        assertEquals(totalBits(terms), 8 * storedBytes({ kind: "twobit", tensor }));
      }
    }
  }
});

Deno.test("packedBits: Llama-2-7B by hand", () => {
  // A layer: q, k, v, o 4096 x 4096; gate, up 11008 x 4096; down 4096 x 11008 = 4 * 2^24 + 3 * 45,088,768 weights.
  // All are whole blocks and tiles: base 2 + refine 2/8 + scale codes 4/16 + zeros 3/16 + picks 1/16 = 2.75,
  // tiles 16 / 256 = 0.0625.
  const [hidden, intermediate] = [4096, 11008];
  const layer = [
    ...Array<[number, number]>(4).fill([hidden, hidden]),
    ...Array<[number, number]>(2).fill([intermediate, hidden]),
    [hidden, intermediate] as const,
  ];
  const sum = layer.map(([rows, channels]) => packedBits(rows, channels, 8, 0)).reduce(addBits, NO_BITS);
  assertEquals(32 * totalBits(sum), 18_213_765_120);
  assertEquals(bitsPerWeight(sum, 202_375_168), {
    codes: 2,
    refine: 0.25,
    scaleCodes: 0.25,
    zeroCodes: 0.1875,
    picks: 0.0625,
    secondOrder: 0.0625,
    outliers: 0,
    outlierStarts: 0,
  });
  assertEquals(totalBits(sum) / 202_375_168, 2.8125);
});

Deno.test("packedBits: rows that end in half a block, by hand", () => {
  const perWeight = (channels: number, refineEvery: RefineEvery) =>
    totalBits(packedBits(16, channels, refineEvery, 0)) / (16 * channels);
  // Groups: 576 = 36 x 16. Base words 36, refine words ceil(36 / 8) = 5, meta words 9; 36 scales of 16 bits a tile.
  assertEquals(perWeight(576, 8), ((36 + 5 + 9) * 32) / 576 + 1 / 16); // 2.8403
  // 960 = 60 groups: 8 refine words, 15 meta words.
  assertEquals(perWeight(960, 8), ((60 + 8 + 15) * 32) / 960 + 1 / 16); // 2.8292
  // 2880 = 180 groups: 23 refine words, 45 meta words.
  assertEquals(perWeight(2880, 8), ((180 + 23 + 45) * 32) / 2880 + 1 / 16); // 2.8181
  assertEquals(perWeight(576, 16), ((36 + 3 + 9) * 32) / 576 + 1 / 16);
  assertEquals(perWeight(576, 4), ((36 + 9 + 9) * 32) / 576 + 1 / 16);
  assertEquals(perWeight(576, "none"), ((36 + 9) * 32) / 576 + 1 / 16);
});

Deno.test("packedBits: SmolLM2-135M by hand", () => {
  // A layer: q, o 576 x 576; k, v 192 x 576; gate, up 1536 x 576; down 576 x 1536. A row of 576 has 50 words (above),
  // one of 1536 (96 groups) 96 + 12 + 24 = 132; a tile has 36 or 96 scales.
  const shapes = [[576, 576], [576, 576], [192, 576], [192, 576], [1536, 576], [1536, 576], [576, 1536]] as const;
  const weights = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 576 * 1536;
  const sum = shapes.map(([rows, channels]) => packedBits(rows, channels, 8, 0)).reduce(addBits, NO_BITS);
  const rows576 = 2 * 576 + 2 * 192 + 2 * 1536;
  assertEquals(totalBits(sum), rows576 * 50 * 32 + (rows576 / 16) * 36 * 16 + 576 * 132 * 32 + 36 * 96 * 16);
  assertEquals((totalBits(sum) / weights).toFixed(4), "2.8333");
});

Deno.test("packedBits: one weight pays for half a block, a tile and an outlier", () => {
  // base 128, refine 32, meta 32, 4 tile scales 64, outlier 32, row starts 64.
  assertEquals(totalBits(packedBits(1, 1, 8, 1)), 128 + 32 + 32 + 64 + 32 + 64);
  assertEquals(totalBits(packedBits(1, 1, 1, 0)), 128 + 4 * 32 + 32 + 64);
});

Deno.test("stripBits: the paper's layout by hand, 4096 x 4096", () => {
  // 256 strips, 64 of them in 4 bits; 192 ordinary groups a row; 64 strips = 8 wide groups of 128 channels.
  assertEquals(stripBits(PAPER_LAYOUT, 4096, 4096), {
    codes: 4096 * (3072 * 2 + 1024 * 4),
    refine: 0,
    scaleCodes: 4096 * (64 * (3 + 3 + 4) + 8 * 16),
    zeroCodes: 4096 * (192 * 2 + 8 * 4),
    picks: 256,
    secondOrder: 256 * 192 * (16 + 4),
    outliers: 0,
    outlierStarts: 0,
  });
  // 10240 / 4096 + 768 / 4096 + 416 / 4096 + 983040 / 2^24 + 256 / 2^24
  assertEquals(
    totalBits(stripBits(PAPER_LAYOUT, 4096, 4096)) / 2 ** 24,
    2.5 + 0.1875 + 0.1015625 + 0.05859375 + 2 ** -16,
  );
});

Deno.test("stripBits: plain and Greenbit-like layouts by hand, 32 x 256", () => {
  const weights = 32 * 256;
  assertEquals(totalBits(stripBits(plainLayout(2, 128), 32, 256)), weights * (2 + 18 / 128));
  assertEquals(totalBits(stripBits(plainLayout(4, 16), 32, 256)), weights * (4 + 20 / 16));
  assertEquals(totalBits(stripBits(greenbitLayout(16), 32, 256)), weights * (2 + 6 / 16 + 16 / 256));
});

const LAYOUTS: readonly StripLayout[] = [
  plainLayout(2, 128),
  plainLayout(2, 16),
  plainLayout(4, 32),
  greenbitLayout(16),
  greenbitLayout(32),
  PAPER_LAYOUT,
];

/** Bits of 4-bit codes that stripBits counts for a short last strip that is taken: it assumes whole ones. */
function shortStripBits({ fourBit, channels, rows }: StripTensor): number {
  const last = Math.ceil(channels / 16) - 1;
  const taken = fourBit.length > 0 && (fourBit[last >> 3] >> (last % 8)) & 1;
  return taken ? (16 * (last + 1) - channels) * 2 * rows : 0;
}

Deno.test("stripBits: 8 x the bytes of stored tensors, but for each plane's last byte", () => {
  let seenShort = 0;
  for (const layout of LAYOUTS) {
    for (const [rows, channels] of SHAPES) {
      const weights = normals(rows * channels, rows * channels);
      // A loud end of the row, so that the last strip is taken in half of the cases.
      if (rows % 2 === 1) { for (let row = 1; row <= rows; row++) weights[row * channels - 1] = 40 * row; }
      const tensor = quantizeStrips(weights, rows, channels, { layout, search: "minmax" });
      const terms = stripBits(layout, rows, channels);
      const short = shortStripBits(tensor);
      seenShort += Number(short > 0);
      const scaleBits = 8 * tensor.scales.byteLength;
      const planes: [string, number, Uint8Array][] = [
        ["codes", terms.codes - short, tensor.codes],
        ["scaleCodes", terms.scaleCodes - scaleBits, tensor.scaleCodes],
        ["zeros", terms.zeroCodes, tensor.zeros],
        ["picks", terms.picks, tensor.fourBit],
        ["tileOffset", terms.secondOrder - 8 * tensor.tileScale.byteLength, tensor.tileOffset],
      ];
      let bytes = tensor.scales.byteLength + tensor.tileScale.byteLength;
      for (const [name, bits, plane] of planes) {
        assertEquals(plane.byteLength, Math.ceil(bits / 8), `${layout.id} ${rows} x ${channels} ${name}`);
        bytes += plane.byteLength;
      }
      assertEquals(storedBytes({ kind: "strips", tensor }), bytes);
    }
  }
  assert(seenShort > 0, "no short last strip was taken");
});
