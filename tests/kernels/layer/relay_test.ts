import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { matmulPlain } from "../../../model/llama/matmul.ts";
import { wholeShader } from "../../../kernels/gpu/shader.ts";
import relayCode from "../../../kernels/layer/parts/relay.wgsl" with { type: "text" };
import { assert, assertEquals } from "../../assert.ts";
import { testGpu } from "../helpers.ts";
import { createTestLayers, layersOnCpu, randomPrefixes } from "../layer_helpers.ts";

/** So few looks at a word that a software adapter doesn't end the loop first. */
const MOST_POLLS = 1000;

/** Hands each value to itself: put with one tag, awaited with another or the same. */
const HAND_OVER = wholeShader(
  "relay",
  `${relayCode}
override most_polls: u32 = ${MOST_POLLS};
override put_tag: u32 = 1;
override awaited_tag: u32 = 1;

@group(0) @binding(0) var<storage, read> given: array<u32>;
@group(0) @binding(1) var<storage, read_write> taken: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) thread: u32) {
  if (thread >= arrayLength(&given)) { return; }
  tag = put_tag;
  relay_put(128u + thread, bitcast<f32>(given[thread]));
  tag = awaited_tag;
  taken[thread] = bitcast<u32>(relay_await(128u + thread));
}
`,
);

/** What values are once they are handed over, and the relay's status. */
async function handOver(gpu: Gpu, values: Uint32Array<ArrayBuffer>, tags: { put_tag: number; awaited_tag: number }) {
  const given = await gpu.uploadStorage("given", values, 4);
  const taken = await gpu.createStorage("taken", values.byteLength);
  const relay = await gpu.createStorage("relay", 4 * 256);
  const buffers = { given, taken, relay };
  gpu.submit([await gpu.makeDispatch(HAND_OVER, { constants: tags, buffers, workgroups: [1, 1, 1] })]);
  const result = new Float32Array(await gpu.read(taken));
  const [status] = new Uint32Array(await gpu.read(relay, 4));
  for (const buffer of Object.values(buffers)) gpu.destroyBuffer(buffer);
  return { result, status };
}

Deno.test("relay: values come to 22 bits, infinities as they are, and what is not a number stays none", async () => {
  const gpu = await testGpu();
  const numbers = Float32Array.of(1, -1, 1 / 3, -2 / 3, Math.PI * 1e30, 1e-30, 0, -0, Infinity, -Infinity);
  // The bits of NVIDIA's NaN are 0x7fffffff, those of Intel's 0xffc00000; one more would be 0 or infinity.
  const notNumbers = Uint32Array.of(0x7fffffff, 0xffffffff, 0x7fc00000, 0xffc00000, 0x7ffffffd, 0x7f800001);
  const values = Uint32Array.from([...new Uint32Array(numbers.buffer), ...notNumbers]);
  for (const tag of [1, 2, 3]) {
    const { result, status } = await handOver(gpu, values, { put_tag: tag, awaited_tag: tag });
    assertEquals(status, 0);
    for (const [i, value] of numbers.entries()) {
      const isNear = Math.abs(result[i] / value - 1) <= 2 ** -22;
      assert(isNear || Object.is(result[i], value), `${value} comes as ${result[i]}`);
    }
    for (const [i, bits] of notNumbers.entries()) {
      assert(Number.isNaN(result[numbers.length + i]), `${bits.toString(16)} comes as ${result[numbers.length + i]}`);
    }
  }
});

Deno.test("relay: a word whose tag doesn't come is no number, and the relay says so", async () => {
  const gpu = await testGpu();
  const values = new Uint32Array(Float32Array.of(1, 2, 3).buffer);
  const { result, status } = await handOver(gpu, values, { put_tag: 1, awaited_tag: 2 });
  assertEquals([...result], [NaN, NaN, NaN]);
  assertEquals(status, 1);
});

/** Kernels made until it is lifted wait less; also notes the constants of the last. */
function impatient(gpu: Gpu) {
  const { createKernel } = gpu;
  const made: { constants: Readonly<Record<string, number>> } = { constants: {} };
  gpu.createKernel = (shader, constants) => {
    made.constants = { ...constants, most_polls: MOST_POLLS };
    return createKernel.call(gpu, shader, made.constants);
  };
  return { made, lift: () => Object.assign(gpu, { createKernel }) };
}

const SMALL = { hidden: 64, intermediate: 64, heads: 4, keyValueHeads: 2, headSize: 16 };

Deno.test("decode_layer: a layer whose input doesn't come gives up, says so, and later steps are right", async () => {
  const gpu = await testGpu();
  const tested = await createTestLayers(gpu, { ...SMALL, runs: [2, 1] });
  const { lift } = impatient(gpu);
  const made = await tested.decode().finally(lift);
  assert(typeof made === "object", `${made}`);
  const prefixes = randomPrefixes(tested.config, 9, 1);
  const input = Float32Array.from({ length: SMALL.hidden }, (_, i) => Math.sin(i));
  const status = async () => new Uint32Array(await gpu.read(made.relay, 4))[0];
  const { output: right } = await tested.run(made, input, prefixes);
  assertEquals(await status(), 0);
  // The last layer without those before it, and then those, which find that it gave up.
  gpu.write(made.relay, new Uint32Array(made.relay.size / 4));
  const [first, last] = made.dispatches;
  for (const dispatches of [[last], [first, last]]) {
    const { output } = await tested.run({ ...made, dispatches }, input, prefixes);
    assertEquals([...output], Array(SMALL.hidden).fill(NaN));
    assertEquals(await status(), 1);
  }
  gpu.write(made.relay, Uint32Array.of(0));
  assertEquals((await tested.run(made, input, prefixes)).output, right);
  assertEquals(await status(), 0);
  tested.destroy();
});

Deno.test("decode_layer: tags differ from layer to layer and from step to step, so that no old value is taken", async () => {
  const gpu = await testGpu();
  for (const count of [2, 3]) {
    const tested = await createTestLayers(gpu, { ...SMALL, runs: Array(count).fill(1) });
    const kernels = impatient(gpu);
    const made = await tested.decode().finally(kernels.lift);
    assert(typeof made === "object", `${made}`);
    const { qkv_at: at, heads, key_value_heads, head_size } = kernels.made.constants;
    const words = (heads + 2 * key_value_heads) * head_size;
    const prefixes = randomPrefixes(tested.config, 3, 1);
    const tags: number[] = [0]; // of a new relay
    for (const dispatch of [...made.dispatches, ...made.dispatches]) {
      await tested.run({ ...made, dispatches: [dispatch] }, new Float32Array(SMALL.hidden).fill(1), prefixes);
      const qkv = new Uint32Array(await gpu.read(made.relay, 4 * words, 4 * at));
      const found = new Set(qkv.map((word) => word & 3));
      assertEquals(found.size, 1, "tags of one layer");
      tags.push(...found);
    }
    const same = tags.findIndex((tag, i) => tag === tags[i - 1]);
    assertEquals(same, -1, `tags of ${count} layers, twice, are ${tags}`);
    tested.destroy();
  }
});

Deno.test("decode_layer: a key that is not a number reaches the output, as in the CPU reference", async () => {
  const gpu = await testGpu();
  const tested = await createTestLayers(gpu, { ...SMALL, runs: [2] });
  const made = await tested.decode();
  assert(typeof made === "object", `${made}`);
  const input = Float32Array.from({ length: SMALL.hidden }, (_, i) => Math.cos(i));
  const prefixes = randomPrefixes(tested.config, 20, 2);
  for (const layer of [0, 1]) {
    const keys = prefixes[layer].keys.slice().fill(NaN, 5, 6);
    const spoiled = prefixes.with(layer, { ...prefixes[layer], keys });
    assert(layersOnCpu(tested, input, spoiled, matmulPlain).output.every(Number.isNaN));
    const { output } = await tested.run(made, input, spoiled);
    assert(output.every(Number.isNaN), `with a NaN in layer ${layer}, the output is ${output.slice(0, 8)}...`);
  }
  tested.destroy();
});
