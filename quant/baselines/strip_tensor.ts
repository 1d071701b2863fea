// A matrix stored in a strip layout: bit-packed planes, their bytes, and decoding.
import { packBits, unpackBits } from "../bit_stream.ts";
import { joinPlanes } from "../concatenate.ts";
import { GROUP_CHANNELS, TILE_ROWS, tilesPerColumn } from "../format.ts";
import { createGrid, decodeGrid, type Grid } from "../grid.ts";
import { scaleCodeBits, type StripGroups, stripGroups, type StripLayout } from "./strip_layout.ts";

/** Scales and zeros of a matrix in a strip layout, one array element a code. */
export interface StripScales {
  /** [strips]: 1 for a 4-bit strip. */
  readonly fourBit: Uint8Array<ArrayBuffer>;
  /** [rows, ordinary groups]: scale codes; empty for f16 scales. */
  readonly scaleCodes: Uint8Array<ArrayBuffer>;
  /** [rows, groups]: integer zeros. */
  readonly zeros: Uint8Array<ArrayBuffer>;
  /** f16 scales: [rows, groups], or [rows, 4-bit groups] where the others are second-order. */
  readonly scales: Float16Array<ArrayBuffer>;
  /** [tiles, ordinary groups]: second-order scales; empty for f16 scales. */
  readonly tileScale: Float16Array<ArrayBuffer>;
  /** [tiles, ordinary groups]: 4-bit offsets; empty where the layout has none. */
  readonly tileOffset: Uint8Array<ArrayBuffer>;
}

/** A matrix as it is stored: the planes of {@linkcode StripScales} and the codes, all u8 planes bit-packed. */
export interface StripTensor extends StripScales {
  readonly layout: StripLayout;
  readonly rows: number;
  readonly channels: number;
  /** Codes [rows, channels], 2 or 4 bits each. */
  readonly codes: Uint8Array<ArrayBuffer>;
}

/** Widths of a row's elements of each bit-packed plane. */
function planeWidths(layout: StripLayout, channels: number, fourBit: Uint8Array, { ordinary, groups }: StripGroups) {
  const rowOf = (length: number, widthOf: (i: number) => number) => Uint8Array.from({ length }, (_, i) => widthOf(i));
  return {
    codes: rowOf(channels, (i) => fourBit[Math.floor(i / GROUP_CHANNELS)] === 1 ? 4 : layout.bits),
    zeros: rowOf(groups, (i) => i < ordinary ? layout.bits : 4),
    scaleCodes: rowOf(ordinary, (i) => scaleCodeBits(layout, i)),
  };
}

/** Stores codes [rows, channels] and their scales. @throws {RangeError} when a code doesn't fit its bits */
export function packStrips(
  layout: StripLayout,
  rows: number,
  channels: number,
  codes: Uint8Array,
  scales: StripScales,
): StripTensor {
  const widths = planeWidths(layout, channels, scales.fourBit, stripGroups(layout, channels, scales.fourBit));
  const mixed = layout.fourBitShare > 0;
  return {
    layout,
    rows,
    channels,
    fourBit: mixed ? packBits(scales.fourBit, [1]) : new Uint8Array(0),
    codes: packBits(codes, widths.codes),
    scaleCodes: packBits(scales.scaleCodes, widths.scaleCodes),
    zeros: packBits(scales.zeros, widths.zeros),
    scales: scales.scales,
    tileScale: scales.tileScale,
    tileOffset: packBits(scales.tileOffset, [4]),
  };
}

/**
 * Joins row ranges of a matrix, in order.
 *
 * @throws {TypeError} when one but the last has an odd number of tiles, whose planes don't end with whole bytes
 */
export function joinStrips(parts: readonly StripTensor[]): StripTensor {
  const odd = parts.slice(0, -1).find(({ rows }) => rows % (2 * TILE_ROWS) !== 0);
  if (odd) throw new TypeError(`part has ${odd.rows} rows, must be a multiple of ${2 * TILE_ROWS}`);
  const rows = parts.reduce((sum, { rows }) => sum + rows, 0);
  return { ...parts[0], ...joinStripScales(parts), ...joinPlanes(parts, ["codes"]), rows };
}

/** Tiles `first` .. `end` - 1 of a matrix, as a matrix; `first` is even, so that its planes begin with whole bytes. */
export function sliceStrips(tensor: StripTensor, first: number, end: number): StripTensor {
  const { rows } = tensor;
  const [firstRow, endRow] = [first, end].map((tile) => Math.min(rows, tile * TILE_ROWS));
  // The last byte of a plane may be padded, by less than a bit a row or tile.
  const part = <T extends Uint8Array | Float16Array>(plane: T, [from, to]: readonly [number, number], all: number) =>
    plane.subarray(Math.floor((plane.length * from) / all), Math.floor((plane.length * to) / all)) as T;
  const rowsOf = <T extends Uint8Array | Float16Array>(plane: T) => part(plane, [firstRow, endRow], rows);
  const tilesOf = <T extends Uint8Array | Float16Array>(plane: T) => part(plane, [first, end], tilesPerColumn(rows));
  return {
    ...tensor,
    rows: endRow - firstRow,
    codes: rowsOf(tensor.codes),
    scaleCodes: rowsOf(tensor.scaleCodes),
    zeros: rowsOf(tensor.zeros),
    scales: rowsOf(tensor.scales),
    tileScale: tilesOf(tensor.tileScale),
    tileOffset: tilesOf(tensor.tileOffset),
  };
}

/** Joins the scales of row ranges, which have the same strips. */
export function joinStripScales(parts: readonly StripScales[]): StripScales {
  const [{ fourBit }] = parts;
  return { fourBit, ...joinPlanes(parts, ["scaleCodes", "zeros", "scales", "tileScale", "tileOffset"]) };
}

/** Decodes a stored matrix: f32 [rows, channels]. */
export function dequantizeStrips(tensor: StripTensor): Float32Array<ArrayBuffer> {
  const { layout, rows, channels } = tensor;
  const strips = Math.ceil(channels / GROUP_CHANNELS);
  const fourBit = layout.fourBitShare > 0 ? unpackBits(tensor.fourBit, strips, [1]) : new Uint8Array(strips);
  const grouping = stripGroups(layout, channels, fourBit);
  const { ordinary, groups } = grouping;
  const widths = planeWidths(layout, channels, fourBit, grouping);
  const tiles = tensor.tileScale.length;
  const hasOffsets = layout.scale !== "f16" && layout.scale.offsetBits > 0;
  const grid = stripGrid(layout, rows, grouping, {
    fourBit,
    scaleCodes: unpackBits(tensor.scaleCodes, layout.scale === "f16" ? 0 : rows * ordinary, widths.scaleCodes),
    zeros: unpackBits(tensor.zeros, rows * groups, widths.zeros),
    scales: tensor.scales,
    tileScale: tensor.tileScale,
    tileOffset: unpackBits(tensor.tileOffset, hasOffsets ? tiles : 0, [4]),
  });
  return decodeGrid(unpackBits(tensor.codes, rows * channels, widths.codes), grid);
}

/** The grid that stored scales and zeros describe. */
export function stripGrid(layout: StripLayout, rows: number, grouping: StripGroups, scales: StripScales): Grid {
  const { groupOf, ordinary, groups } = grouping;
  const grid = createGrid(rows, groupOf);
  for (let row = 0; row < rows; row++) {
    for (let group = 0; group < groups; group++) {
      const index = row * groups + group;
      const scale = scaleOf(layout, row, group, grouping, scales);
      grid.step[index] = scale;
      grid.lowest[index] = -scales.zeros[index] * scale;
      grid.maxCode[index] = (group < ordinary ? 1 << layout.bits : 16) - 1;
    }
  }
  return grid;
}

function scaleOf(
  { scale }: StripLayout,
  row: number,
  group: number,
  { ordinary, groups }: StripGroups,
  { scaleCodes, scales, tileScale, tileOffset }: StripScales,
): number {
  if (scale === "f16") return scales[row * groups + group];
  if (group >= ordinary) return scales[row * (groups - ordinary) + group - ordinary];
  const tile = Math.floor(row / TILE_ROWS) * ordinary + group;
  return (scaleCodes[row * ordinary + group] + (tileOffset[tile] ?? 0)) * tileScale[tile];
}
