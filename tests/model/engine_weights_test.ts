import { uploadWeights } from "../../model/engine_weights.ts";
import { openDirectory } from "../../model/open_directory.ts";
import { checkpointSource } from "../../model/weight_source.ts";
import { assertFreedWhenFull, testGpu } from "../kernels/helpers.ts";

const fixture = (name: string) => new URL(`../fixtures/${name}`, import.meta.url).pathname;

for (const name of ["llama3_scaled_bias", "qwen3_wide_heads"]) {
  Deno.test(`uploadWeights: ${name} leaves nothing on the device where memory runs out on the way`, async () => {
    const gpu = await testGpu();
    using checkpoint = await openDirectory(fixture(name));
    await assertFreedWhenFull(
      gpu,
      () => uploadWeights(gpu, checkpointSource(checkpoint)),
      (weights) => weights.destroy(),
    );
  });
}

Deno.test("uploadWeights: layers that are copied leave nothing on the device either", async () => {
  const gpu = await testGpu();
  using checkpoint = await openDirectory(fixture("llama3_scaled_bias"));
  const source = { ...checkpointSource(checkpoint), sameLayers: true };
  await assertFreedWhenFull(gpu, () => uploadWeights(gpu, source), (weights) => weights.destroy());
});
