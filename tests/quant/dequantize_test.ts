import { dequantize, dequantizeCodes } from "../../quant/dequantize.ts";
import { REFINE_EVERY, type RefineEvery } from "../../quant/format.ts";
import { pack, unpack } from "../../quant/pack.ts";
import { type PackedTensor, validatePackedTensor } from "../../quant/packed_tensor.ts";
import { assert, assertEquals } from "../assert.ts";
import { readF32 } from "../fixture.ts";
import { assertFinite, assertSameBits, assertSameTensor, randomUnpacked } from "./helpers.ts";

const FIXTURES = new URL("../fixtures/", import.meta.url).pathname;

/** Tensors of a safetensors file, by hand: 8 bytes of header length, a JSON header, the planes. */
async function readTensors(): Promise<Map<string, PackedTensor>> {
  const { buffer } = await Deno.readFile(`${FIXTURES}packed.safetensors`);
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(buffer.slice(8, start)));
  const plane = (name: string) => buffer.slice(...header[name].data_offsets.map((at: number) => start + at));
  const shapes: Record<string, { rows: number; channels: number; refineEvery: RefineEvery }> = JSON.parse(
    header.__metadata__.tensors,
  );
  return new Map(
    Object.entries(shapes).map(([name, shape]) => [name, {
      ...shape,
      base: new Uint32Array(plane(`${name}.base`)),
      refine: new Uint32Array(plane(`${name}.refine`)),
      meta: new Uint32Array(plane(`${name}.meta`)),
      tileScale: new Float16Array(plane(`${name}.tile_scale`)),
      outlierStart: new Uint32Array(plane(`${name}.outlier_start`)),
      outlierChannel: new Uint16Array(plane(`${name}.outlier_index`)),
      outlierResidual: new Float16Array(plane(`${name}.outlier_residual`)),
    }]),
  );
}

Deno.test("dequantize: agrees with the numpy reader bit for bit", async () => {
  // packed.f32.gz was decoded by tests/fixtures/read_packed.py; both are re-made by make_packed.ts.
  const expected = await readF32("packed.f32");
  let at = 0;
  const densities = new Set<RefineEvery>();
  for (const [name, tensor] of await readTensors()) {
    validatePackedTensor(tensor);
    const weights = dequantize(tensor);
    assertEquals(weights.length, tensor.rows * tensor.channels);
    assertSameBits(weights, expected.slice(at, at + weights.length), name);
    assertSameTensor(pack(unpack(tensor)), tensor);
    at += weights.length;
    densities.add(tensor.refineEvery);
  }
  assertEquals(at, expected.length);
  assertEquals(densities.size, REFINE_EVERY.length);
});

Deno.test("dequantize: is exact in f32 before outliers, whatever the order of operations", () => {
  for (const refineEvery of REFINE_EVERY) {
    const tensor = randomUnpacked(5, 17, 200, refineEvery, 0);
    const weights = dequantizeCodes(tensor);
    const groups = tensor.scaleCodes.length / tensor.rows;
    for (let row = 0; row < tensor.rows; row++) {
      for (let channel = 0; channel < tensor.channels; channel++) {
        const group = channel >> 4;
        const at = row * groups + group;
        const [unit, zero] = tensor.refined[at]
          ? [0.25, 1.21875 + 0.1875 * tensor.zeroCodes[at]]
          : [1, 0.625 + 0.25 * tensor.zeroCodes[at]];
        const d = tensor.tileScale[(row >> 4) * groups + group];
        const step = Math.fround(Math.fround(tensor.codes[(row * groups + group) * 16 + channel % 16] * unit) - zero);
        const inOneOrder = Math.fround(Math.fround(step * d) * tensor.scaleCodes[at]);
        const inAnother = Math.fround(step * Math.fround(d * tensor.scaleCodes[at]));
        assert(Object.is(weights[row * tensor.channels + channel], inOneOrder) && Object.is(inOneOrder, inAnother));
      }
    }
  }
});

Deno.test("dequantize: the largest legal weight is far below f32's limit", () => {
  const tensor = randomUnpacked(1, 16, 128, 1, 1);
  for (const sign of [1, -1]) {
    const weights = dequantizeCodes({
      ...tensor,
      codes: tensor.codes.map(() => 15),
      scaleCodes: tensor.scaleCodes.map(() => 15),
      zeroCodes: tensor.zeroCodes.map(() => 0),
      tileScale: tensor.tileScale.map(() => sign * 65504),
      outliers: { ...tensor.outliers, residual: tensor.outliers.residual.map(() => sign * 65504) },
    });
    assertFinite(weights);
    assertEquals(weights[0], sign * ((3.75 - 1.21875) * 15 * 65504 + 65504));
  }
});
