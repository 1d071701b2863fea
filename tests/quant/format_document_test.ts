// docs/format.md, followed to the letter: the reader below is written from that page alone and shares no code with
// quant/ (but the number of the version, which the page must state), so it fails when the page and the format part.
import { dequantize } from "../../quant/dequantize.ts";
import { FORMAT_VERSION } from "../../quant/format.ts";
import { type PackedTensor, validatePackedTensor } from "../../quant/packed_tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { readF32 } from "../fixture.ts";

const PAGE = await Deno.readTextFile(new URL("../../docs/format.md", import.meta.url));
const FIXTURES = new URL("../fixtures/", import.meta.url);

/** Planes of a tensor by their suffix in the file. */
type Planes = Readonly<Record<string, readonly number[]>>;

interface Shape {
  readonly rows: number;
  readonly channels: number;
  readonly refineEvery: number | "none";
}

/** Bits `first` to `last` of a word, both included. */
const bits = (word: number, first: number, last: number) => Math.floor(word / 2 ** first) % 2 ** (last - first + 1);

/** Which group of its run is refined, by the page's table. */
function isRefined(word: number, group: number, every: Shape["refineEvery"]): boolean {
  if (every === "none") return false;
  if (every === 1) return true;
  if (every === 2) return group % 2 === (group % 4 < 2 ? bits(word, 28, 28) : bits(word, 29, 29));
  return group % every === bits(word, 28, 31);
}

function decode({ rows, channels, refineEvery }: Shape, planes: Planes): number[] {
  const halves = Math.ceil(channels / 64);
  const groups = 4 * halves;
  const runs = refineEvery === "none" ? 0 : Math.ceil(groups / refineEvery);
  const weights: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let channel = 0; channel < channels; channel++) {
      const [group, c] = [Math.floor(channel / 16), channel % 16];
      const word = planes.meta[halves * row + Math.floor(group / 4)];
      const k = group % 4;
      const [s, z] = [bits(word, 7 * k, 7 * k + 3), bits(word, 7 * k + 4, 7 * k + 6)];
      const refined = isRefined(word, group, refineEvery);
      const b = bits(planes.base[groups * row + group], 2 * c, 2 * c + 1);
      const run = Math.floor(group / Number(refineEvery));
      const r = refined ? bits(planes.refine[runs * row + run], 2 * c, 2 * c + 1) : 0;
      const zero = refined ? 1.21875 + 0.1875 * z : 0.625 + 0.25 * z;
      weights.push((b + r / 4 - zero) * s * planes.tile_scale[groups * Math.floor(row / 16) + group]);
    }
    const end = planes.outlier_start.length === 0 ? 0 : planes.outlier_start[row + 1];
    for (let i = planes.outlier_start[row] ?? 0; i < end; i++) {
      const at = channels * row + planes.outlier_index[i];
      weights[at] = Math.fround(weights[at] + planes.outlier_residual[i]);
    }
  }
  return weights;
}

/** Lines of the block of text after a marker of the page: the first word and the others. */
function exampleLines(name: string): [string, string[]][] {
  const block = PAGE.split(`<!-- example: ${name} -->`)[1].split("```")[1];
  return block.trim().split("\n").slice(1).map((line) => {
    const [first, ...others] = line.split(/\s+/);
    return [first, others];
  });
}

const f16 = (pattern: number) => new Float16Array(Uint16Array.of(pattern).buffer)[0];
const HALVES = ["tile_scale", "outlier_residual"];

function examplePlanes(): Planes {
  return Object.fromEntries(
    exampleLines("planes").map(([name, words]) => {
      const numbers = words.map((word) => parseInt(word, 16));
      return [name, HALVES.includes(name) ? numbers.map(f16) : numbers];
    }),
  );
}

function exampleWeights(): number[] {
  return exampleLines("weights").flatMap(([channels, values]) => {
    const [first, last] = channels.split("..").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => Number(values[i % values.length]));
  });
}

/** -0 and 0 are the same weight. */
const unsigned = (values: Iterable<number>) => Array.from(values, (value) => value + 0);

Deno.test("docs/format.md: its example decodes to its weights, by its own words and by ours", () => {
  const shape = { rows: 1, channels: 128, refineEvery: 8 } as const;
  const planes = examplePlanes();
  assertEquals(unsigned(decode(shape, planes)), exampleWeights());
  const tensor: PackedTensor = {
    ...shape,
    base: Uint32Array.from(planes.base),
    refine: Uint32Array.from(planes.refine),
    meta: Uint32Array.from(planes.meta),
    tileScale: Float16Array.from(planes.tile_scale),
    outlierStart: Uint32Array.from(planes.outlier_start),
    outlierChannel: Uint16Array.from(planes.outlier_index),
    outlierResidual: Float16Array.from(planes.outlier_residual),
  };
  validatePackedTensor(tensor);
  assertEquals(unsigned(dequantize(tensor)), exampleWeights());
});

Deno.test("docs/format.md: a reader by its words finds in a file what numpy found (tests/fixtures/read_packed.py)", async () => {
  const bytes = await Deno.readFile(new URL("packed.safetensors", FIXTURES));
  const size = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + size)));
  const shapes: Record<string, Shape> = JSON.parse(header.__metadata__.tensors);
  const arrays = { U32: Uint32Array, U16: Uint16Array, F16: Float16Array };
  const read = (name: string): number[] => {
    const { dtype, data_offsets: [from, to] } = header[name];
    return Array.from(new arrays[dtype as keyof typeof arrays](bytes.slice(8 + size + from, 8 + size + to).buffer));
  };
  const suffixes = exampleLines("planes").map(([suffix]) => suffix);
  const found = Object.entries(shapes).flatMap(([name, shape]) =>
    decode(shape, Object.fromEntries(suffixes.map((suffix) => [suffix, read(`${name}.${suffix}`)])))
  );
  const expected = await readF32("packed.f32");
  assertEquals(new Set(Object.values(shapes).map(({ refineEvery }) => refineEvery)).size, 6);
  assertEquals(unsigned(found), unsigned(expected));
});

Deno.test("docs/format.md: is about the version that is written", () => {
  assert(PAGE.startsWith(`# The packed format, version ${FORMAT_VERSION}\n`));
  assertEquals(/^\| `version` +\| `(\d+)`/m.exec(PAGE)?.[1], String(FORMAT_VERSION));
});

Deno.test("docs/format.md: names every plane and metadata key that files have", async () => {
  const source = await Deno.readTextFile(new URL("../../model/files/packed_file.ts", import.meta.url));
  const names = Array.from(
    source.matchAll(/suffix: "(\w+)"|^ {2}(\w+): (?:"twobit"|String|JSON)/gm),
    ([, a, b]) => a ?? b,
  );
  assertEquals(names.length, 14);
  for (const name of [...names, "gguf_tensors"]) assert(PAGE.includes(name), name);
});
