import type { Gpu } from "../../../kernels/gpu/gpu.ts";
import { matmulPlain } from "../../model/llama/matmul_plain.ts";
import { wholeShader } from "../../../kernels/gpu/shader.ts";
import { joinShader } from "../../../kernels/gpu/shader.ts";
import * as wgsl from "../../../kernels/layer/wgsl.ts";
import { type ActivationBits, activationsOf, packActivations } from "../../../kernels/product/pack_activations.ts";
import { createRandom } from "../../../quant/random.ts";
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

/** An input that nothing asks for. */
const NO_INPUT = `// is: input
const RMS_NORM = 1u;
struct Input { x: vec4<f32> }

fn input_values(input: Input, first: u32, stride: u32) -> vec4<f32> { return input.x; }
fn input_squares(input: Input, first: u32, stride: u32) -> f32 { return 0.0; }
fn norm_factor_of(squares: f32) -> f32 { return 1.0; }
`;

/** Hands groups over and puts them into cells, whose vectors become planes as in pack_activations.ts. */
const HAND_OVER_GROUPS = `// needs: relay_groups
override workgroup_size: u32 = 64;
override team: u32 = 32;
override cell_count: u32 = 128;
override partial_count: u32 = 1;
override most_polls: u32 = ${MOST_POLLS};
override own_tag: u32 = 1;

@group(0) @binding(0) var<storage, read> given: array<f32>;
@group(0) @binding(1) var<storage, read_write> packed: array<vec4<u32>>; // [10, 32 half blocks]
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;

const first_column = 0u;
const columns = 1u;
const row_teams = 1u;
const rows = 1u;
const channels = 2048u;
const output_kind = 0u;
const workgroup_steps = 1u;
const ends_in_half = 0u;
const half_blocks = 32u;
const input_kind = 0u;
const scale_start = 0u;
var<private> tile_scale: array<vec4<u32>, 1>;

struct Step { none: u32 }
fn output_row(first_row: u32, i: u32) -> u32 { return 0u; }
fn load_step(row: u32, lane: Lane) -> Step { return Step(0u); }
fn has_outliers() -> bool { return false; }

@compute @workgroup_size(workgroup_size)
fn main(@builtin(local_invocation_index) thread: u32) {
  tag = own_tag;
  for (var first = 0u; first < 512u; first += workgroup_size) {
    let at = (first + thread) / 4u * 16u + thread % 4u;
    let values = vec4(given[at], given[at + 4u], given[at + 8u], given[at + 12u]);
    hand_over_quarter(128u, first + thread, values, dot(values, values), own_tag, true, thread);
  }
  workgroupBarrier();
  for (var group = thread; group < 128u; group += workgroup_size) {
    squares[group] = put_handed(await_handed(128u, group, load_handed(128u, group)), group);
    let plane = group % 4u * 32u + group / 4u;
    packed[plane] = cell_hi[group];
    if (activation_bits > 8u) { packed[128u + plane] = cell_lo[group]; }
    packed[256u + group / 4u][group % 4u] = bitcast<u32>(cell_sum[group].x);
    packed[288u + group / 4u][group % 4u] = bitcast<u32>(cell_sum[group].y);
  }
}
`;

for (const [bits, activationBits, most] of [[15, 16, 16128], [8, 8, 508]] as const) {
  Deno.test(`relay: groups come as the CPU packs them to ${bits} bits, whatever the tag`, async () => {
    await checkGroups(await testGpu(), activationBits, most);
  });
}

async function checkGroups(gpu: Gpu, activationBits: ActivationBits, most: number) {
  const random = createRandom(3);
  const x = Float32Array.from({ length: 2048 }, () => random.normal());
  x.fill(0, 16, 32);
  x[40] = 3000;
  x.subarray(64, 80).forEach((value, i, group) => group[i] = value * 2 ** -110);
  x[100] = NaN;
  x[130] = -Infinity;
  const expected = packActivations(x, activationBits, most);
  const { values, steps } = activationsOf(expected, 2048, activationBits);
  const files = { ...wgsl, hand_over_groups: HAND_OVER_GROUPS, no_input: NO_INPUT };
  for (const tag of [1, 2, 3]) {
    const constants = { own_tag: tag, activation_bits: activationBits };
    const buffers = {
      given: await gpu.uploadStorage("given", x, 4),
      packed: await gpu.createStorage("packed", expected.byteLength),
      squares: await gpu.createStorage("squares", 4 * 128),
      relay: await gpu.createStorage("relay", 4 * (128 + 4 * 384)),
    };
    const shader = joinShader(files, "hand_over_groups", "exchange_subgroup", "no_input");
    gpu.submit([await gpu.makeDispatch(shader, { constants, buffers, workgroups: [1, 1, 1] })]);
    const taken = activationsOf(new Uint32Array(await gpu.read(buffers.packed)), 2048, activationBits);
    const sums = new Float32Array(await gpu.read(buffers.packed, 4 * 128, 16 * 288));
    const squares = await gpu.readF32(buffers.squares);
    for (const buffer of Object.values(buffers)) gpu.destroyBuffer(buffer);
    for (let group = 0; group < 128; group++) {
      const [own, at] = [steps[group], 16 * group];
      const isFinite = x.subarray(at, at + 16).every(Number.isFinite);
      assertEquals(Number.isNaN(taken.steps[group]), !isFinite, `step of group ${group}`);
      if (!isFinite) continue;
      assert(Math.abs(taken.steps[group] - own) <= own * 2 ** -21, `step ${taken.steps[group]} of group ${group}`);
      // Next to a half a value may be rounded the other way, since the device's reciprocals are.
      let sum = 0;
      for (let c = 0; c < 16; c++) {
        const unit = own * (c % 2 === 0 && activationBits === 16 ? 1 : 4);
        const distance = Math.abs(taken.values[at + c] - values[at + c]);
        assert(distance <= unit * 1.01, `channel ${at + c} is ${distance / unit} units off`);
        sum += taken.values[at + c];
      }
      const steps512 = taken.steps[group];
      const exact = steps512 === 0 ? 0 : sum / steps512;
      assert(
        Math.abs(sums[group] - exact) <= Math.abs(exact) * 2 ** -21 + 0.01,
        `sum of group ${group}: ${sums[group]}`,
      );
      const total = x.subarray(at, at + 16).reduce((all, value) => all + value * value, 0);
      assert(
        Math.abs(squares[group] - total) <= total * 2 ** -20 + 2 ** -126,
        `squares of group ${group}: ${squares[group]}`,
      );
    }
  }
}

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
