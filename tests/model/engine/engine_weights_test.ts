import { openGpu } from "../../../kernels/gpu/gpu.ts";
import type { F16Matrix } from "../../../kernels/matrix/f16_matrix.ts";
import { uploadWeights } from "../../../model/engine/engine_weights.ts";
import { openDirectory } from "../../../model/files/open_directory.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { assertEquals, assertRejects } from "../../assert.ts";
import { assertFreedWhenFull, testGpu } from "../../kernels/helpers.ts";
import { inDirectory } from "../../temporary.ts";
import { packPlan } from "../pack_plan.ts";

const fixture = (name: string) => new URL(`../../fixtures/${name}`, import.meta.url).pathname;

for (const name of ["llama3_scaled_bias", "qwen3_wide_heads"]) {
  Deno.test(`uploadWeights: ${name} leaves nothing on the device where memory runs out on the way`, async () => {
    const gpu = await testGpu();
    using checkpoint = await openDirectory(fixture(name));
    await assertFreedWhenFull(
      gpu,
      () => uploadWeights(gpu, checkpointSource(checkpoint)),
      (weights) => weights[Symbol.dispose](),
    );
  });
}

Deno.test("uploadWeights: sizes that the kernels don't take are refused before anything is read", async () => {
  const gpu = await testGpu();
  using checkpoint = await openDirectory(fixture("llama_tied_gqa"));
  const refused = async (changes: object, message: string) => {
    const config = { ...checkpoint.config, ...changes };
    const source = { ...checkpointSource(checkpoint), config, half: () => Promise.reject(new Error("was read")) };
    await assertRejects(() => uploadWeights(gpu, source), RangeError, message);
  };
  await refused({ headSize: 100 }, "head size is 100, must be a multiple of 8 up to 256");
  await refused({ headSize: 264 }, "head size is 264, must be a multiple of 8 up to 256");
  await refused({ hidden: 44 }, "hidden size is 44, must be a multiple of 8");
  // The product of gate and up takes 4, that with down 8, and neither says so before its layer is on the device.
  for (const intermediate of [44, 49, 50]) {
    await refused({ intermediate }, `intermediate size is ${intermediate}, must be a multiple of 8`);
  }
});

Deno.test("uploadWeights: packed layers, also where they are copied, leave nothing on the device either", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q.safetensors`;
    using original = await openDirectory(fixture("llama_tied_gqa"));
    using pool = createCpuPool(1);
    await writePackedFile(cpuDevice(pool), original, packPlan(path));
    using packed = await openPacked(path);
    const gpu = await testGpu();
    const source = checkpointSource(packed);
    for (const sameLayers of [false, true]) {
      await assertFreedWhenFull(
        gpu,
        () => uploadWeights(gpu, { ...source, sameLayers }),
        (weights) => weights[Symbol.dispose](),
      );
    }
  }));

Deno.test("uploadWeights: where no layers run whole, matrices stay in their own planes", async () => {
  using gpu = await openGpu();
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias"));
  const upload = () => uploadWeights(gpu, checkpointSource(checkpoint));
  using shared = await upload();
  const [{ linears }] = shared.layers;
  const bufferOf = ({ slabs: [{ weights }] }: F16Matrix) => weights.buffer;
  const [qkv, o] = [linears.qkv, linears.o].map(([matrix]) => bufferOf(matrix as F16Matrix));
  assertEquals([qkv === o, typeof shared.arenas], [true, "object"]);
  Object.defineProperty(gpu, "capabilities", { value: { ...gpu.capabilities, checksUniformity: true } });
  using apart = await upload();
  const own = apart.layers.flatMap(({ linears }) =>
    Object.values(linears).flat().map((each) => bufferOf(each as F16Matrix))
  );
  assertEquals(new Set(own).size, own.length);
  assertEquals(
    apart.arenas,
    `the WebGPU (${gpu.capabilities.implementation}) must be Deno's: others refuse barriers between stages of variable size`,
  );
});
