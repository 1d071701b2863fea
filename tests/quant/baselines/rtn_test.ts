import { quantizeStrips } from "../../../quant/baselines/strips.ts";
import { unpackBits } from "../../../quant/bit_stream.ts";
import { plainLayout } from "../../../quant/baselines/strip_layout.ts";
import { dequantizeStrips } from "../../../quant/baselines/strip_tensor.ts";
import { storedBytes } from "../../../quant/quantize.ts";
import { assertEquals } from "../../assert.ts";
import { readJson } from "../../fixture.ts";

/** Weights and their round to nearest in base64, computed by numpy 2.4 (tests/fixtures/make_rtn.py). */
interface Expected {
  readonly rows: number;
  readonly channels: number;
  readonly weights: string;
  readonly layouts: {
    bits: 2 | 4;
    group: number;
    codes: string;
    zeros: string;
    scales: string;
    decoded: string;
  }[];
}

const { rows, channels, weights, layouts } = await readJson<Expected>("rtn.json");

const bytes = (base64: string) => Uint8Array.fromBase64(base64);

for (const { bits, group, codes, zeros, scales, decoded } of layouts) {
  Deno.test(`quantizeStrips: ${bits}-bit round to nearest at g${group} equals numpy's in every bit`, () => {
    const matrix = new Float32Array(bytes(weights).buffer);
    const layout = plainLayout(bits, group);
    const tensor = quantizeStrips(matrix, rows, channels, { layout, search: "minmax" });
    const groups = Math.ceil(channels / group);
    assertEquals(Array.from(tensor.scales), Array.from(new Float16Array(bytes(scales).buffer)));
    assertEquals(unpackBits(tensor.zeros, rows * groups, [bits]), bytes(zeros));
    assertEquals(unpackBits(tensor.codes, rows * channels, [bits]), bytes(codes));
    // numpy's decoded weights hold no -0; ours may.
    assertEquals(Array.from(dequantizeStrips(tensor), (w) => w + 0), [...new Float32Array(bytes(decoded).buffer)]);
    const size = Math.ceil(rows * channels * bits / 8) + Math.ceil(rows * groups * bits / 8) + 2 * rows * groups;
    assertEquals(storedBytes({ kind: "strips", tensor }), size);
  });
}
