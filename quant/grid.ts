// Grids: the values that the weights of a matrix may take, given the scale and zero of each group.
//
// A weight's value is lowest + code * step, with code 0 .. maxCode. In the packed format's terms
// step = scale (a quarter of it in a refined group) and lowest = -zero * scale.

/** The grid of a matrix. Groups are runs or sets of input channels of one row, the same in every row. */
export interface Grid {
  readonly rows: number;
  readonly channels: number;
  readonly groups: number;
  /** [channels]: group of each input channel. */
  readonly groupOf: Uint16Array;
  /** [rows, groups] each. A step of 0 makes a group constant. */
  readonly step: Float32Array;
  /** [rows, groups]: value of the code 0. */
  readonly lowest: Float32Array;
  /** [rows, groups]: highest code. */
  readonly maxCode: Uint8Array;
}

export function createGrid(rows: number, groupOf: Uint16Array): Grid {
  const groups = groupOf.reduce((max, group) => Math.max(max, group + 1), 0);
  return {
    rows,
    channels: groupOf.length,
    groups,
    groupOf,
    step: new Float32Array(rows * groups),
    lowest: new Float32Array(rows * groups),
    maxCode: new Uint8Array(rows * groups),
  };
}

/** Code of the grid value nearest to `value`, ties upwards. */
export function nearestCode(value: number, lowest: number, step: number, maxCode: number): number {
  if (step === 0) return 0;
  const code = Math.floor((value - lowest) / step + 0.5);
  return code < 0 ? 0 : code > maxCode ? maxCode : code;
}

/** Round to nearest: the code of every weight, [rows, channels]. */
export function nearestCodes(weights: Float32Array, grid: Grid): Uint8Array<ArrayBuffer> {
  const { rows, channels, groups, groupOf, step, lowest, maxCode } = grid;
  const codes = new Uint8Array(rows * channels);
  for (let row = 0; row < rows; row++) {
    for (let channel = 0; channel < channels; channel++) {
      const group = row * groups + groupOf[channel];
      const at = row * channels + channel;
      codes[at] = nearestCode(weights[at], lowest[group], step[group], maxCode[group]);
    }
  }
  return codes;
}

/** Values of codes, f32 [rows, channels]. */
export function decodeGrid(codes: Uint8Array, grid: Grid): Float32Array<ArrayBuffer> {
  const { rows, channels, groups, groupOf, step, lowest } = grid;
  const values = new Float32Array(rows * channels);
  for (let row = 0; row < rows; row++) {
    for (let channel = 0; channel < channels; channel++) {
      const group = row * groups + groupOf[channel];
      const at = row * channels + channel;
      values[at] = lowest[group] + codes[at] * step[group];
    }
  }
  return values;
}
