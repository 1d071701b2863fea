import { DeviceLostError, OutOfMemoryError } from "../../../kernels/gpu/device_errors.ts";
import { type Gpu, openGpu, spreadWorkgroups } from "../../../kernels/gpu/gpu.ts";
import { wholeShader } from "../../../kernels/gpu/shader.ts";
import { timeDispatches } from "../../../kernels/gpu/timer.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { testGpu } from "../helpers.ts";

const DOUBLE = wholeShader(
  "double",
  `
override count: u32 = 1;
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) { if (id.x < count) { values[id.x] *= 2.0; } }
`,
);

Deno.test("Gpu uploads, runs and reads back; kernels are compiled once", async () => {
  const gpu = await testGpu();
  const values = Float32Array.from({ length: 70 }, (_, i) => i);
  const buffer = await gpu.uploadStorage("values", values);
  const kernel = await gpu.createKernel(DOUBLE, { count: 69 });
  assertEquals(await gpu.createKernel(DOUBLE, { count: 69 }), kernel);
  gpu.submit([{ kernel, bindings: gpu.bind(kernel, { values: buffer }), workgroups: [2, 1, 1] }]);
  assertEquals(await gpu.readF32(buffer, 70), values.map((value, i) => i < 69 ? 2 * value : value));
  assertEquals(new Float32Array(await gpu.read(buffer, 8, 12)), Float32Array.of(6, 8));
});

Deno.test("Gpu.write splits large uploads and pads odd sizes", async () => {
  const gpu = await testGpu();
  const bytes = new Uint8Array(33 * 2 ** 20 + 3).map((_, i) => i % 251);
  const buffer = await gpu.uploadStorage("bytes", bytes);
  const read = new Uint8Array(await gpu.read(buffer));
  assert(bytes.every((byte, i) => byte === read[i]));
  assertEquals(read[bytes.length], 0);
  gpu.destroyBuffer(buffer);
  assertThrows(() => gpu.destroyBuffer(buffer), Error, "buffer bytes is not live, must be freed once by its owner");
});

Deno.test("Gpu.wait and read take no 10 ms: Deno still blocks in an unawaited mapAsync", async () => {
  const gpu = await testGpu();
  const buffer = await gpu.createStorage("buffer", 256);
  await gpu.read(buffer);
  await gpu.wait();
  const startMs = performance.now();
  for (let i = 0; i < 20; i++) {
    await gpu.read(buffer);
    await gpu.wait();
  }
  const perCallMs = (performance.now() - startMs) / 40;
  assert(perCallMs < 5, `a read or wait takes ${perCallMs} ms, must take less than 5`);
});

Deno.test("Gpu errors are typed and say what was wanted", async () => {
  const gpu = await openGpu();
  await assertRejects(
    () => gpu.createStorage("odd", 6),
    RangeError,
    "odd has 6 bytes, must be a positive multiple of 4",
  );
  await assertRejects(() => gpu.createKernel(wholeShader("broken", "fn main(")), SyntaxError, "broken");
  const error = new OutOfMemoryError("no room", 8, 4);
  assertEquals([error.neededBytes, error.heldBytes, error.name], [8, 4, "OutOfMemoryError"]);
  gpu.close();
  await gpu.device.lost;
  await assertRejects(() => gpu.wait(), DeviceLostError, "the device is lost");
});

Deno.test("Gpu.checkRoom: room that is only asked for isn't counted as held", async () => {
  const gpu = await testGpu();
  await gpu.wait();
  const before = [gpu.heldBytes, gpu.peakBytes];
  await gpu.checkRoom("a text", 2 ** 28 + 2 ** 20 + 1);
  assertEquals([gpu.heldBytes, gpu.peakBytes], before);
});

Deno.test("spreadWorkgroups covers the count within the limit of a dimension", () => {
  for (const count of [1, 65535, 65536, 200_000, 5_000_000]) {
    const [x, y] = spreadWorkgroups(count);
    assert(x <= 65535 && y <= 65535 && x * y >= count && x * (y - 1) < count, `${count}: ${x} x ${y}`);
  }
});

Deno.test("timeDispatches says that a device has no timestamps", async () => {
  const without = { features: new Set() } as unknown as Gpu;
  await assertRejects(() => timeDispatches(without, [[]]), Error, "the device lacks timestamp-query");
});

Deno.test("timeDispatches keeps raw samples in order and their median", async () => {
  const gpu = await testGpu();
  const buffer = await gpu.createStorage("values", 1024);
  const kernel = await gpu.createKernel(DOUBLE, { count: 256 });
  const dispatch = { kernel, bindings: gpu.bind(kernel, { values: buffer }), workgroups: [4, 1, 1] as const };
  const timing = await timeDispatches(gpu, [[dispatch], [dispatch, dispatch]], { samples: 11, warmUpMs: 1 });
  const sorted = timing.samplesUs.toSorted((a, b) => a - b);
  assertEquals(timing.samplesUs.length + timing.invalid, 11);
  assertEquals([timing.minUs, timing.medianUs, timing.maxUs], [
    sorted[0],
    sorted[Math.floor(sorted.length / 2)],
    sorted[sorted.length - 1],
  ]);
  assert(timing.minUs > 0);
});

Deno.test("errors of submitted work reach the next read, and reads at the same time all succeed", async () => {
  const gpu = await openGpu();
  const good = await gpu.uploadStorage("good", Uint32Array.of(1, 2, 3, 4));
  const bad = await gpu.createBuffer("not readable", 16, GPUBufferUsage.STORAGE);
  await assertRejects(() => gpu.read(bad), Error, "read of not readable is invalid");
  const reads = await Promise.all([gpu.read(good), gpu.read(good, 8), gpu.wait(), gpu.read(good, 4, 12)]);
  assertEquals(new Uint32Array(reads[0]), Uint32Array.of(1, 2, 3, 4));
  assertEquals(new Uint32Array(reads[3]!), Uint32Array.of(4));
  gpu.copy(good, 8, good, 8, 16);
  await assertRejects(() => gpu.wait(), Error, "copy of good is invalid");
  await gpu.wait();
  gpu.close();
  await assertRejects(() => gpu.read(good), DeviceLostError);
});
