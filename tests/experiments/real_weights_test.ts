import { createHash } from "node:crypto";
import { createContext } from "../../experiments/context.ts";
import { describeText, describeTypes, deviceName } from "../../experiments/provenance.ts";
import { withRealWeights } from "../../experiments/packed/real_weights.ts";
import { openModel } from "../../model/load.ts";
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
    // What an interrupted run left.
    await Deno.mkdir(`${directory}/results/timed_file`, { recursive: true });
    await Deno.writeTextFile(`${directory}/results/timed_file/packed.safetensors`, "half a file");
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
    const sha256 = createHash("sha256").update(await Deno.readFile(path)).digest("hex");
    const file = `q.safetensors (sha256 ${sha256.slice(0, 16)}): ${of4}`;
    assertEquals([beside.name, beside.packed], ["llama_tied_gqa", file]);
    // Without its source the file itself is decoded, matrix by matrix.
    const alone = await take(directory, path);
    assertEquals([alone.name, alone.packed, ...alone.kinds], [
      "q.safetensors",
      file,
      "f16",
      "packed",
    ]);
    assert(beside.kinds.join() === alone.kinds.join());
  }));

Deno.test("describeText: a text from a file by its last part and sha256, others by their name", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/a.txt`, "abc");
    // As sha256sum gives it.
    assertEquals(await describeText(`file:${directory}/a.txt`), "a.txt (sha256 ba7816bf8f01cfea)");
    assertEquals([await describeText("sotu"), await describeText("wikitext2")], ["sotu", "wikitext2"]);
  }));

Deno.test("describeTypes: what matrices are stored in, by number", async () => {
  using blocks = await openModel("tests/fixtures/gguf/q4_k_m.gguf");
  // The types as the Python package gguf 0.19 reads them.
  const counts = { Q5_0: 10, Q8_0: 2, Q6_K: 1, Q4_K: 1 };
  assertEquals(
    describeTypes(blocks).split("; ").sort(),
    Object.entries(counts).map(([type, count]) => `${count} matrices: ${type}, decoded`).sort(),
  );
  using plain = await openModel(MODEL);
  assertEquals(describeTypes(plain), "BF16");
});

Deno.test("deviceName: a folder's name, without the memory that a driver adds to it", () => {
  const nameOf = (name: string, software = false) => deviceName({ name, software });
  assertEquals(nameOf("NVIDIA H100 80GB HBM3"), "nvidia-h100");
  assertEquals(nameOf("NVIDIA H200"), "nvidia-h200");
  assertEquals(nameOf("NVIDIA H100 PCIe"), "nvidia-h100-pcie");
  // Of these there are two with unlike bandwidths.
  assertEquals(nameOf("NVIDIA A100-SXM4-80GB"), "nvidia-a100-sxm4-80gb");
  assertEquals(nameOf("llvmpipe (LLVM 15.0.6, 256 bits)", true), "software");
  assertEquals(deviceName(undefined), "software");
});
