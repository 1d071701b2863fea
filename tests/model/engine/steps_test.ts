/**
 * A net under the engine: the dispatches of every step, as [kernel, constants, workgroups], of the embedded model and of
 * the architecture fixtures. They are recorded in fixtures/steps.json, not derived elsewhere: whoever changes them on
 * purpose runs `TWOBIT_RECORD_STEPS=1 deno test -A tests/model/engine/steps_test.ts` and says why in the commit.
 */
import { type Dispatch, type Gpu, type Kernel, openGpu } from "../../../kernels/gpu/gpu.ts";
import { type EngineWeights, uploadWeights } from "../../../model/engine/engine_weights.ts";
import { createSession } from "../../../model/engine/session.ts";
import { checkpointSource } from "../../../model/engine/weight_source.ts";
import { openModel } from "../../../model/load.ts";
import { assert, assertEquals } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";
import { DENSITIES, fixture, quantizeFixture } from "../engine_helpers.ts";

const RECORD = new URL("../../fixtures/steps.json", import.meta.url);
const CAPACITY = 96;

/** Steps by name: a line a dispatch. */
type Steps = Record<string, string[]>;

/** Makes a device tell which dispatches it is given. */
function watch(gpu: Gpu): { take(): string[] } {
  const constantsOf = new Map<Kernel, Readonly<Record<string, number>>>();
  const { createKernel, submit } = gpu;
  let lines: string[] = [];
  gpu.createKernel = async (shader, constants = {}) => {
    const kernel = await createKernel.call(gpu, shader, constants);
    constantsOf.set(kernel, constants);
    return kernel;
  };
  gpu.submit = (dispatches: readonly Dispatch[]) => {
    for (const { kernel, workgroups } of dispatches) {
      lines.push(JSON.stringify([kernel.label, constantsOf.get(kernel), workgroups]));
    }
    submit.call(gpu, dispatches);
  };
  return {
    take() {
      const taken = lines;
      lines = [];
      return taken;
    },
  };
}

const tokens = (length: number) => Uint32Array.from({ length }, (_, i) => (i * 7) % 90);
const withoutStride = (line: string) => line.replace(/"stride":\d+/, '"stride":0');
const SAMPLING = { temperature: 0.8, topK: 20, topP: 0.9, seed: 1 };

async function recordModel(gpu: Gpu, seen: { take(): string[] }, weights: EngineWeights): Promise<Steps> {
  const steps: Steps = {};
  seen.take();
  using session = await createSession(gpu, weights, CAPACITY);
  await session.prefill([tokens(5)]);
  steps["prefill of 5"] = seen.take();
  await session.decode([0], 1);
  steps["decode"] = seen.take();
  await session.decode([0], 1, [SAMPLING]);
  steps["decode, sampled"] = seen.take();
  await session.score(tokens(20), tokens(20));
  steps["score 20"] = seen.take();
  // Batches join their splits, which takes heads of whole groups.
  if (weights.config.headSize % 16 !== 0) return steps;
  using batch = await createSession(gpu, weights, CAPACITY, 5);
  await batch.prefill(Array.from({ length: 5 }, () => tokens(3)));
  seen.take();
  for (const sequences of [[0, 1, 2, 3, 4], [1, 3]]) {
    await batch.decode(sequences, 1);
    steps[`batch of ${sequences.length}`] = seen.take();
  }
  // The last sequence of several goes on by the kernels of one alone, once its token is embedded; only its place differs.
  await batch.decode([4], 1);
  seen.take();
  await batch.decode([4], 1);
  steps["batch of 1"] = seen.take();
  assertEquals(steps["batch of 1"].map(withoutStride), steps["decode"]);
  return steps;
}

async function recordAll(withoutSubgroups: boolean): Promise<Record<string, Steps>> {
  const all: Record<string, Steps> = {};
  using gpu = await openGpu({ withoutSubgroups });
  const seen = watch(gpu);
  const record = async (name: string, path: string) => {
    using checkpoint = await openModel(path);
    const weights = await uploadWeights(gpu, checkpointSource(checkpoint));
    all[name] = await recordModel(gpu, seen, weights);
    weights[Symbol.dispose]();
  };
  await record("tiny", "tiny");
  if (!withoutSubgroups) await record("qwen2_tied", fixture("qwen2_tied").pathname);
  await inDirectory(async (directory) => {
    for (const [i, [density, quantizerOf]] of DENSITIES.entries()) {
      const path = `${directory}/${i}.safetensors`;
      await quantizeFixture("qwen3_wide_heads", path, quantizerOf);
      await record(`qwen3_wide_heads, packed, ${density}`, path);
    }
  });
  return all;
}

Deno.test("steps of decode, prefill and batches are the ones recorded", async () => {
  const found = { "with subgroups": await recordAll(false), "without subgroups": await recordAll(true) };
  if (Deno.env.get("TWOBIT_RECORD_STEPS")) await Deno.writeTextFile(RECORD, JSON.stringify(found, null, 1) + "\n");
  const recorded: typeof found = JSON.parse(await Deno.readTextFile(RECORD));
  for (const [device, models] of Object.entries(found)) {
    for (const [model, steps] of Object.entries(models)) {
      for (const [step, lines] of Object.entries(steps)) {
        assert(lines.length > 0);
        assertEquals(lines, recorded[device as keyof typeof recorded][model]?.[step], `${device}, ${model}: ${step}`);
      }
    }
  }
});
