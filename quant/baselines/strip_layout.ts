// Layouts of the baselines: groups of consecutive channels in 2 or 4 bits with integer zeros, f16 or second-order
// scales, and, in the paper's layout, whole column strips in 4 bits.
import { type BitTerms, NO_BITS } from "../bits.ts";
import { GROUP_CHANNELS, TILE_ROWS } from "../format.ts";

/** How scales are stored: one f16 a group, or a code a group and an f16 (with an offset) a tile of 16 rows. */
export type ScaleStorage = "f16" | {
  /** Bits of a group's scale code, repeating over the groups of a row. */
  readonly codeBits: readonly number[];
  /** Bits of a tile's offset: scale = (code + offset) * d. */
  readonly offsetBits: 0 | 4;
};

/** A baseline's layout. */
export interface StripLayout {
  readonly id: string;
  /** Channels of a group that doesn't lie in a 4-bit strip. */
  readonly groupChannels: number;
  /** Bits of a weight that doesn't lie in a 4-bit strip. */
  readonly bits: 2 | 4;
  readonly scale: ScaleStorage;
  /** Share of column strips (16 channels, all rows) stored in 4 bits. */
  readonly fourBitShare: number;
}

/** Strips that share one f16 scale and one 4-bit zero in each row of the paper's layout: groups of 128 channels. */
const STRIPS_PER_GROUP = 8;

/** Plain groups with one f16 scale each. */
export function plainLayout(bits: 2 | 4, groupChannels: number): StripLayout {
  return { id: `plain${bits}_g${groupChannels}`, groupChannels, bits, scale: "f16", fourBitShare: 0 };
}

/** 2-bit groups whose scales are 4-bit codes on an f16 a tile, no mixed bits: what Greenbit-style kernels read. */
export function greenbitLayout(groupChannels: number): StripLayout {
  return {
    id: `greenbit_g${groupChannels}`,
    groupChannels,
    bits: 2,
    scale: { codeBits: [4], offsetBits: 0 },
    fourBitShare: 0,
  };
}

/**
 * The paper's layout, reconstructed from its method figure and its 2.85 bits.
 *
 * Choice: scale codes of three groups take 3 + 3 + 4 bits (with three 2-bit zeros, the figure's 16 bits); 20 bits a tile
 * (f16 scale, 4-bit offset) for 16 rows x 16 channels; a 4-bit group's overhead of 0.156 bits is read as an f16 scale
 * and a 4-bit zero for 128 channels, here those of eight strips.
 */
export const PAPER_LAYOUT: StripLayout = {
  id: "paper",
  groupChannels: GROUP_CHANNELS,
  bits: 2,
  scale: { codeBits: [3, 3, 4], offsetBits: 4 },
  fourBitShare: 0.25,
};

/** Groups of a matrix in a strip layout: first the ordinary ones, then those of 4-bit strips. */
export interface StripGroups {
  /** [channels]: group of each input channel. */
  readonly groupOf: Uint16Array<ArrayBuffer>;
  /** Groups that don't lie in 4-bit strips. */
  readonly ordinary: number;
  /** All groups. */
  readonly groups: number;
}

/** Column strips of a matrix; the last one may be short. */
export function stripCount(channels: number): number {
  return Math.ceil(channels / GROUP_CHANNELS);
}

/** 4-bit strips of a matrix with this many channels. */
export function fourBitStrips(layout: StripLayout, channels: number): number {
  return Math.round(layout.fourBitShare * stripCount(channels));
}

/** Assigns channels to groups. `fourBit` has 1 for each 4-bit strip. */
export function stripGroups(layout: StripLayout, channels: number, fourBit: Uint8Array): StripGroups {
  const groupOf = new Uint16Array(channels);
  const inStrip = (channel: number) => fourBit[Math.floor(channel / GROUP_CHANNELS)] === 1;
  let seen = 0;
  for (let channel = 0; channel < channels; channel++) {
    if (!inStrip(channel)) groupOf[channel] = Math.floor(seen++ / layout.groupChannels);
  }
  const ordinary = Math.ceil(seen / layout.groupChannels);
  seen = 0;
  for (let channel = 0; channel < channels; channel++) {
    if (inStrip(channel)) groupOf[channel] = ordinary + Math.floor(seen++ / (STRIPS_PER_GROUP * GROUP_CHANNELS));
  }
  return { groupOf, ordinary, groups: ordinary + Math.ceil(seen / (STRIPS_PER_GROUP * GROUP_CHANNELS)) };
}

export function scaleCodeBits({ scale }: StripLayout, group: number): number {
  return scale === "f16" ? 0 : scale.codeBits[group % scale.codeBits.length];
}

/** Bits of a matrix in a strip layout; each plane is padded to whole bytes. */
export function stripBits(layout: StripLayout, rows: number, channels: number): BitTerms {
  const strips = fourBitStrips(layout, channels);
  // The bits don't depend on which strips are taken, but for the last one, which may be short.
  const fourBit = new Uint8Array(stripCount(channels)).fill(1, 0, strips);
  const { ordinary, groups } = stripGroups(layout, channels, fourBit);
  const wide = Math.min(channels, strips * GROUP_CHANNELS);
  const { scale } = layout;
  let codeBits = 0;
  for (let group = 0; group < ordinary; group++) codeBits += scaleCodeBits(layout, group);
  const f16Scales = scale === "f16" ? groups : groups - ordinary;
  const tiles = scale === "f16" ? 0 : Math.ceil(rows / TILE_ROWS) * ordinary;
  const offsetBits = scale === "f16" ? 0 : scale.offsetBits;
  return {
    ...NO_BITS,
    codes: wholeBytes(rows * (wide * 4 + (channels - wide) * layout.bits)),
    scaleCodes: wholeBytes(rows * codeBits) + rows * 16 * f16Scales,
    zeroCodes: wholeBytes(rows * (ordinary * layout.bits + (groups - ordinary) * 4)),
    picks: layout.fourBitShare > 0 ? wholeBytes(fourBit.length) : 0,
    secondOrder: tiles * 16 + wholeBytes(tiles * offsetBits),
  };
}

function wholeBytes(bits: number): number {
  return 8 * Math.ceil(bits / 8);
}
