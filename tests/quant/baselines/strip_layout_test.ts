import {
  fourBitStrips,
  greenbitLayout,
  PAPER_LAYOUT,
  plainLayout,
  scaleCodeBits,
  stripCount,
  stripGroups,
} from "../../../quant/baselines/strip_layout.ts";
import { assertEquals } from "../../assert.ts";

const times = (count: number, value: number) => new Array<number>(count).fill(value);

Deno.test("stripGroups: plain groups are runs of channels, the last one short", () => {
  const { groupOf, ordinary, groups } = stripGroups(plainLayout(2, 32), 70, new Uint8Array(5));
  assertEquals([...groupOf], [...times(32, 0), ...times(32, 1), ...times(6, 2)]);
  assertEquals([ordinary, groups], [3, 3]);
});

Deno.test("stripGroups: 4-bit strips come last, eight of them a group", () => {
  // 12 strips; all but 1, 4 and 11 in 4 bits: nine 4-bit strips = one group of eight and one of one.
  const fourBit = Uint8Array.of(1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 0);
  const { groupOf, ordinary, groups } = stripGroups(PAPER_LAYOUT, 12 * 16, fourBit);
  assertEquals([ordinary, groups], [3, 5]);
  const byStrip = [3, 0, 3, 3, 1, 3, 3, 3, 3, 3, 4, 2];
  assertEquals([...groupOf], byStrip.flatMap((group) => times(16, group)));
});

Deno.test("stripGroups: a short last strip, ordinary or in 4 bits", () => {
  const ordinaryLast = stripGroups(PAPER_LAYOUT, 50, Uint8Array.of(0, 1, 0, 0));
  assertEquals([ordinaryLast.ordinary, ordinaryLast.groups], [3, 4]);
  assertEquals([...ordinaryLast.groupOf], [...times(16, 0), ...times(16, 3), ...times(16, 1), ...times(2, 2)]);
  const wideLast = stripGroups(PAPER_LAYOUT, 50, Uint8Array.of(0, 0, 0, 1));
  assertEquals([wideLast.ordinary, wideLast.groups], [3, 4]);
  assertEquals([...wideLast.groupOf], [...times(16, 0), ...times(16, 1), ...times(16, 2), ...times(2, 3)]);
});

Deno.test("stripGroups: all strips in 4 bits", () => {
  const { groupOf, ordinary, groups } = stripGroups(PAPER_LAYOUT, 40, Uint8Array.of(1, 1, 1));
  assertEquals([ordinary, groups], [0, 1]);
  assertEquals([...groupOf], times(40, 0));
});

Deno.test("fourBitStrips: a quarter of the strips in the paper's layout, rounded; none elsewhere", () => {
  assertEquals([1, 16, 17, 4096].map(stripCount), [1, 1, 2, 256]);
  assertEquals([16, 32, 64, 96, 112, 4096].map((channels) => fourBitStrips(PAPER_LAYOUT, channels)), [
    0,
    1,
    1,
    2,
    2,
    64,
  ]);
  assertEquals(fourBitStrips(greenbitLayout(16), 4096), 0);
});

Deno.test("scaleCodeBits: 3, 3, 4 in the paper's layout, 4 in the Greenbit-like one, none with f16 scales", () => {
  assertEquals([0, 1, 2, 3, 4, 5].map((group) => scaleCodeBits(PAPER_LAYOUT, group)), [3, 3, 4, 3, 3, 4]);
  assertEquals([0, 1, 2].map((group) => scaleCodeBits(greenbitLayout(32), group)), [4, 4, 4]);
  assertEquals([0, 1, 2].map((group) => scaleCodeBits(plainLayout(2, 16), group)), [0, 0, 0]);
});
