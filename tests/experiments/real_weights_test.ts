import { createContext } from "../../experiments/context.ts";
import { withRealWeights } from "../../experiments/real_weights.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import { assert, assertEquals } from "../assert.ts";
import { inDirectory } from "../temporary.ts";

const MODEL = "tests/fixtures/llama_tied_gqa";

/** What a run takes of the model. */
async function take(directory: string, modelName: string, quantizedName?: string) {
  const settings = { quick: true, seed: 1, modelName, textName: "sotu", taskFiles: [], directory };
  using context = createContext({ ...settings, ...(quantizedName !== undefined && { quantizedName }) }, () => {});
  return await withRealWeights(context, false, async ({ name, packed, sources }) => {
    const full = await sources.f16.linear(0, "q_proj");
    const mixed = await sources.twobit.linear(0, "q_proj");
    return { name, packed, kinds: [full.kind, mixed.kind] };
  });
}

Deno.test("withRealWeights: a model is packed for as long as it is used, a packed file is taken as it is", () =>
  inDirectory(async (directory) => {
    const densities = "one refined group in 8 in 14 matrices";
    assertEquals(await take(`${directory}/results`, MODEL), {
      name: "llama_tied_gqa",
      packed: `as quantize does by default, scales searched alone: ${densities}`,
      kinds: ["f16", "packed"],
    });
    assertEquals(Array.from(Deno.readDirSync(`${directory}/results`)), []);
    const path = `${directory}/q.safetensors`;
    await quantizeModel(MODEL, path, { method: "search", device: "cpu", refine: 4 });
    const of4 = "one refined group in 4 in 14 matrices";
    const beside = await take(directory, MODEL, path);
    assertEquals([beside.name, beside.packed], ["llama_tied_gqa", `q.safetensors: ${of4}`]);
    // Without its source the file itself is decoded, matrix by matrix.
    const alone = await take(directory, path);
    assertEquals([alone.name, alone.packed, ...alone.kinds], [
      "q.safetensors",
      `q.safetensors: ${of4}`,
      "f16",
      "packed",
    ]);
    assert(beside.kinds.join() === alone.kinds.join());
  }));
