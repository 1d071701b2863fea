// Rotary position embedding, of whole heads or of a part of them, with or without a scaling.
import type { Rope } from "./config.ts";
import { scaleFrequency } from "./rope_scaling.ts";

export interface Rotation {
  /** Angles between a position and the next, one for each pair of a head's elements; 0 for pairs that don't rotate. */
  readonly frequencies: Float32Array;
  /** Factor of cosine and sine of pairs that rotate. */
  readonly attentionFactor: number;
}

/**
 * The rotation of a sequence, with frequencies rounded to f32 as Hugging Face transformers does.
 *
 * @param tokens of the sequence, or that it has room for: `longrope` has other frequencies beyond its original context
 */
export function rotationOf({ theta, rotatedSize, scaling }: Rope, headSize: number, tokens: number): Rotation {
  const rope = { theta, rotatedSize: rotatedSize ?? headSize, tokens };
  const frequencies = Float32Array.from({ length: headSize / 2 }, (_, pair) => {
    if (2 * pair >= rope.rotatedSize) return 0;
    const frequency = Math.fround(1 / Math.pow(theta, (2 * pair) / rope.rotatedSize));
    return scaling ? scaleFrequency(scaling, frequency, pair, rope) : frequency;
  });
  return { frequencies, attentionFactor: scaling && "attentionFactor" in scaling ? scaling.attentionFactor : 1 };
}

/** Fails for a sequence that goes on from keys that were rotated otherwise than its next are. @throws {RangeError} */
export function refuseOtherRotation({ scaling }: Rope, before: number, tokens: number): void {
  if (scaling?.type !== "longrope" || before === 0) return;
  const { originalContext } = scaling;
  if (before > originalContext || tokens <= originalContext) return;
  throw new RangeError(
    `sequence goes on from ${before} to ${tokens} tokens, must stay within its original context of ${originalContext} ` +
      "or be taken in at once",
  );
}

/** Cosine and sine of a pair's angle at a position. */
function turnOf({ frequencies, attentionFactor }: Rotation, pair: number, position: number): [number, number] {
  const angle = Math.fround(position * frequencies[pair]);
  const factor = frequencies[pair] === 0 ? 1 : attentionFactor;
  return [Math.cos(angle) * factor, Math.sin(angle) * factor];
}

/**
 * The order in which a half-split head (pairs i and i + headSize / 2, those that rotate first) takes its elements from a head
 * that rotates only its first elements, or neighbours: its element i is element order[i] there. Scores don't change when q
 * and k are reordered alike. Undefined where both are the same.
 */
export function halfSplitOrder(rope: Rope, headSize: number, rotatesNeighbours: boolean): number[] | undefined {
  const rotated = rope.rotatedSize ?? headSize;
  if (rotated === headSize && !rotatesNeighbours) return undefined;
  const [pairs, half] = [rotated / 2, headSize / 2];
  return Array.from({ length: headSize }, (_, element) => {
    const [side, i] = [Math.floor(element / half), element % half];
    if (i >= pairs) return rotated + side * (half - pairs) + i - pairs;
    return rotatesNeighbours ? 2 * i + side : side * pairs + i;
  });
}

/**
 * Cosine and sine of every position's angles: f32 [positions, headSize / 2, 2].
 *
 * @param tokens that sequences have room for, at most `positions`
 */
export function rotationTable(
  rope: Rope,
  headSize: number,
  positions: number,
  tokens = positions,
): Float32Array<ArrayBuffer> {
  const rotation = rotationOf(rope, headSize, tokens);
  const table = new Float32Array(positions * headSize);
  for (let position = 0, at = 0; position < positions; position++) {
    for (let pair = 0; pair < headSize / 2; pair++, at += 2) table.set(turnOf(rotation, pair, position), at);
  }
  return table;
}

/**
 * Rotates the heads of one token in place: element i of a head forms a pair with element i + headSize / 2.
 *
 * @param values f32, heads one after the other from `offset`
 */
export function rotateHeads(
  values: Float32Array,
  offset: number,
  heads: number,
  rotation: Rotation,
  position: number,
): void {
  const half = rotation.frequencies.length;
  for (let i = 0; i < half; i++) {
    const [cos, sin] = turnOf(rotation, i, position);
    for (let head = 0; head < heads; head++) {
      const at = offset + head * 2 * half + i;
      const a = values[at];
      const b = values[at + half];
      values[at] = a * cos - b * sin;
      values[at + half] = b * cos + a * sin;
    }
  }
}
