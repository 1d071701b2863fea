// Damaged and hostile files made of good ones.
import type { Random } from "../../../quant/random.ts";

/** What a stranger may put in place of a value. */
const JUNK: readonly unknown[] = [
  null,
  true,
  -1,
  0,
  0.5,
  4294967295,
  2 ** 53,
  1e308,
  "",
  "\u001b[31m\n\r\u2028",
  "x".repeat(5000),
  "__proto__",
  "(a+)+$",
  "[",
  [],
  {},
  [[[[[[]]]]]],
  { type: "Sequence" },
  new Array(2000).fill(7),
];

/** What a stranger may call a field. */
const JUNK_NAMES: readonly string[] = [
  "",
  "\u001b[31m\n\r\u2028",
  "\u0007".repeat(500),
  "model.layers.0.mlp." + "\u009b".repeat(200),
  "model.layers.1." + "x".repeat(5000) + ".weight",
  "__proto__",
  "constructor",
  "1e9",
];

/** A copy of a JSON value with a part of it replaced, left out, doubled or taken from elsewhere. */
export function mutateJson(value: unknown, random: Random): unknown {
  const copy = structuredClone(value);
  let at = copy;
  while (true) {
    const keys = Object.keys(at as object);
    const key = keys[random.integer(keys.length)];
    const fields = at as Record<string, unknown>;
    const inner = fields[key];
    const goesOn = typeof inner === "object" && inner !== null && Object.keys(inner).length > 0 &&
      random.integer(4) > 0;
    if (goesOn) {
      at = inner;
      continue;
    }
    const kind = random.integer(5);
    if (kind === 0) delete fields[key];
    else if (kind === 1) fields[key] = JUNK[random.integer(JUNK.length)];
    else if (kind === 2) fields[keys[random.integer(keys.length)]] = inner;
    else if (kind === 3) fields[`${key}${random.integer(3)}`] = inner;
    else fields[JUNK_NAMES[random.integer(JUNK_NAMES.length)]] = inner;
    return copy;
  }
}

/** A text with a piece cut out, doubled, or replaced by another. */
export function mutateText(text: string, random: Random, pieces: readonly string[]): string {
  const [start, length] = [random.integer(text.length), 1 + random.integer(12)];
  const piece = text.slice(start, start + length);
  const other = pieces[random.integer(pieces.length)];
  const put = ["", piece + piece, other, other + piece][random.integer(4)];
  return text.slice(0, start) + put + text.slice(start + length);
}

/** Numbers that a file may claim where it has another. */
const HOSTILE_WORDS: readonly bigint[] = [0n, 1n, 0xffn, 1n << 31n, 1n << 32n, 1n << 53n, 1n << 63n, (1n << 64n) - 1n];

/** A copy of a file with bits flipped, a number overwritten, a piece left out, doubled or moved, or its end cut off. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(bytes);
  // What says how to read the rest lies at the start or at the end, and decides most.
  const region = Math.min(bytes.length, 64 << random.integer(11));
  const at = random.integer(4) > 0 ? random.integer(region) : bytes.length - 1 - random.integer(region);
  const [length, to] = [1 + random.integer(16), random.integer(bytes.length)];
  switch (random.integer(6)) {
    case 0:
      return copy.slice(0, at);
    case 1:
      return Uint8Array.from([...copy.subarray(0, at), ...copy.subarray(at + length)]);
    case 2:
      return Uint8Array.from([...copy.subarray(0, at), ...copy.subarray(to, to + length), ...copy.subarray(at)]);
    case 3: {
      const word = new DataView(new ArrayBuffer(8));
      word.setBigUint64(0, HOSTILE_WORDS[random.integer(HOSTILE_WORDS.length)], random.integer(2) === 0);
      copy.set(new Uint8Array(word.buffer, 0, Math.min(8, copy.length - at)), at);
      return copy;
    }
    case 4:
      return copy.copyWithin(at, to, to + length);
    default:
      for (let flip = random.integer(3); flip >= 0; flip--) {
        copy[(at + flip * random.integer(8)) % copy.length] ^= 1 << random.integer(8);
      }
      return copy;
  }
}

/** A safetensors file whose header has a part replaced, left out, doubled or taken from elsewhere; its data stay. */
export function mutateHeader(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const text = new TextEncoder().encode(JSON.stringify(mutateJson(header, random)));
  const mutated = new Uint8Array(8 + text.length + bytes.length - 8 - length);
  new DataView(mutated.buffer).setBigUint64(0, BigInt(text.length), true);
  mutated.set(text, 8);
  mutated.set(bytes.subarray(8 + length), 8 + text.length);
  return mutated;
}
