/**
 * Rotary position embedding, of whole heads or of a part of them, with Llama 3.1's scaling of low frequencies.
 *
 * @module
 */
import type { Rope } from "./config.ts";

/**
 * Angular frequencies, one for each pair of a head's elements, rounded to f32 as Hugging Face transformers does.
 * Llama 3.1: wavelengths above originalContext / lowFrequencyFactor are slowed by `factor`, those below
 * originalContext / highFrequencyFactor are kept, those between are blended. Pairs that don't rotate have frequency 0.
 */
export function ropeFrequencies({ theta, rotatedSize, llama3 }: Rope, headSize: number): Float32Array {
  const rotated = rotatedSize ?? headSize;
  return Float32Array.from({ length: headSize / 2 }, (_, i) => {
    if (2 * i >= rotated) return 0;
    const frequency = Math.fround(1 / Math.pow(theta, (2 * i) / rotated));
    if (!llama3) return frequency;
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = llama3;
    const turns = (originalContext * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + ((1 - kept) * frequency) / factor;
  });
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

/** Cosine and sine of every position's angles: f32 [positions, headSize / 2, 2]. */
export function rotationTable(rope: Rope, headSize: number, positions: number): Float32Array<ArrayBuffer> {
  const frequencies = ropeFrequencies(rope, headSize);
  const table = new Float32Array(positions * headSize);
  let at = 0;
  for (let position = 0; position < positions; position++) {
    for (const frequency of frequencies) {
      const angle = Math.fround(position * frequency);
      table[at++] = Math.cos(angle);
      table[at++] = Math.sin(angle);
    }
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
  frequencies: Float32Array,
  position: number,
): void {
  const half = frequencies.length;
  for (let i = 0; i < half; i++) {
    const angle = Math.fround(position * frequencies[i]);
    const cos = Math.cos(angle);
    const sin = Math.sin(angle);
    for (let head = 0; head < heads; head++) {
      const at = offset + head * 2 * half + i;
      const a = values[at];
      const b = values[at + half];
      values[at] = a * cos - b * sin;
      values[at + half] = b * cos + a * sin;
    }
  }
}
