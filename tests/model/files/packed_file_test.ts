import { bytesSource } from "../../../model/files/byte_source.ts";
import { readTensorBytes } from "../../../model/files/safetensors.ts";
import { readModel } from "../../../model/files/checkpoint.ts";
import { writeHuggingFaceDirectory } from "../../../model/files/huggingface_writer.ts";
import { LINEAR_KINDS, linearName } from "../../../model/llama/layer.ts";
import { openModel } from "../../../model/load.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { readPackedCheckpoint } from "../../../model/files/packed_checkpoint.ts";
import {
  type PackedMetadata,
  packedMetadata,
  planesToWrite,
  readPackedShapes,
  readPackedTensor,
} from "../../../model/files/packed_file.ts";
import { openSafetensors } from "../../../model/files/open_directory.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { cpuDevice } from "../../../model/quantize/cpu_device.ts";
import { layersDirectory } from "../../../model/quantize/finished_layers.ts";
import { type PackedFilePlan, writePackedFile } from "../../../model/quantize/packed_writer.ts";
import { REFINE_EVERY } from "../../../quant/format.ts";
import { pack } from "../../../quant/pack.ts";
import type { PackedTensor } from "../../../quant/packed_tensor.ts";
import { twobitQuantizer } from "../../../quant/recipe.ts";
import { createCpuPool } from "../../../model/workers/cpu_pool.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects } from "../../assert.ts";
import { assertSameTensor, randomUnpacked } from "../../quant/helpers.ts";
import { filesIn, inDirectory } from "../../temporary.ts";

const FIXTURE = new URL("../../fixtures/llama_tied_gqa", import.meta.url).pathname;

const calibration = Array.from({ length: 3 }, (_, i) => {
  const random = createRandom(i);
  return Uint32Array.from({ length: 40 }, () => random.integer(96));
});

function planFor(path: string, changes: Partial<PackedFilePlan> = {}): PackedFilePlan {
  return {
    path,
    calibration,
    correctTarget: true,
    metadata: { sourceSha256: "0".repeat(64), settings: "{}" },
    resume: false,
    quantizerOf: () => twobitQuantizer({ outliers: { share: 0.01, groups: "two_bit", rule: "error" } }),
    ...changes,
  };
}

async function writeFixture(directory: string, name: string, changes: Partial<PackedFilePlan> = {}): Promise<string> {
  using pool = createCpuPool(2);
  using checkpoint = await openModel(FIXTURE);
  const path = `${directory}/${name}.safetensors`;
  await writePackedFile(cpuDevice(pool), checkpoint, planFor(path, changes));
  return path;
}

Deno.test("packed file: an interrupted run resumes to the same bytes, and leaves no file before it is whole", () =>
  inDirectory(async (directory) => {
    const whole = await writeFixture(directory, "whole");
    const crash: Partial<PackedFilePlan> = {
      onLayer: (_stored, { index }) => {
        if (index === 0) throw new Error("power cut");
      },
    };
    await assertRejects(() => writeFixture(directory, "resumed", crash), Error, "power cut");
    const path = `${directory}/resumed.safetensors`;
    await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
    assertEquals(filesIn(layersDirectory(path)), [
      "layer-0.safetensors",
      "run.json",
    ]);
    await writeFixture(directory, "resumed", { resume: true });
    assertEquals(await Deno.readFile(path), await Deno.readFile(whole));
    assertEquals(filesIn(directory), [
      "resumed.safetensors",
      "whole.safetensors",
    ]);
  }));

Deno.test("packed file: resuming with other settings is refused", () =>
  inDirectory(async (directory) => {
    const crash = {
      onLayer: () => {
        throw new Error("power cut");
      },
    };
    await assertRejects(() => writeFixture(directory, "q", crash), Error, "power cut");
    const resumed = async (metadata: PackedMetadata, wanted: string) => {
      const message = `was made with other settings or another checkpoint: ${wanted}`;
      await assertRejects(() => writeFixture(directory, "q", { resume: true, metadata }), RangeError, message);
    };
    const [zeros, ones] = ["0".repeat(64), "1".repeat(64)];
    await resumed({ sourceSha256: ones, settings: "{}" }, `sourceSha256 was "${zeros}", is "${ones}"`);
    await resumed({ sourceSha256: zeros, settings: '{"refine":4}' }, "refine was missing, is 4");
    // A run of version 1 didn't say its version.
    const state = `${layersDirectory(`${directory}/q.safetensors`)}/run.json`;
    const { formatVersion: _, ...others } = JSON.parse(await Deno.readTextFile(state));
    await Deno.writeTextFile(state, JSON.stringify(others));
    await resumed({ sourceSha256: zeros, settings: "{}" }, "formatVersion was missing, is 2");
  }));

Deno.test("packed file: resuming without an interrupted run, or with other calibration or quantizers, is refused", () =>
  inDirectory(async (directory) => {
    await assertRejects(() => writeFixture(directory, "q", { resume: true }), RangeError, "holds no interrupted run");
    // A run that was killed before it wrote what it is.
    await Deno.mkdir(`${directory}/early.safetensors.layers`);
    await Deno.writeTextFile(`${directory}/early.safetensors.layers/run.json.partial-7`, "{");
    await writeFixture(directory, "early", { resume: true });
    assertEquals(filesIn(directory), ["early.safetensors"]);
    const crash = {
      onLayer: () => {
        throw new Error("power cut");
      },
    };
    await assertRejects(() => writeFixture(directory, "q", crash), Error, "power cut");
    const changes: Partial<PackedFilePlan>[] = [
      { calibration: calibration.slice(1) },
      { quantizerOf: () => twobitQuantizer({ pick: "range" }) },
    ];
    for (const change of changes) {
      await assertRejects(
        () => writeFixture(directory, "q", { resume: true, ...change }),
        RangeError,
        "calibration text or quantizers differ",
      );
    }
    await writeFixture(directory, "q", { resume: true });
  }));

Deno.test("packed file: tensors come back as they were, rows that end in half a block too", () =>
  inDirectory(async (directory) => {
    const tensors = new Map<string, PackedTensor>();
    for (const channels of [16, 64, 80, 192, 576]) {
      for (const every of REFINE_EVERY) {
        tensors.set(`t${channels}.${every}`, pack(randomUnpacked(channels, 17, channels, every, 0.01)));
      }
    }
    const path = `${directory}/tensors.safetensors`;
    const planes = Array.from(tensors, ([name, tensor]) => planesToWrite(name, tensor)).flat();
    await writeSafetensors(path, planes, packedMetadata(tensors, { sourceSha256: "", settings: "{}" }));
    const file = await openSafetensors(path);
    using _source = file.source;
    const shapes = readPackedShapes(file);
    assertEquals([...shapes.keys()], [...tensors.keys()]);
    for (const [name, shape] of shapes) {
      assertSameTensor(await readPackedTensor(file, name, shape), tensors.get(name)!);
    }
    assertEquals(file.tensors.get("t576.8.base")?.shape, [17, 9, 4]);
    assertEquals(file.tensors.get("t576.8.refine")?.shape, [17, 5]);
    assertEquals(file.tensors.get("t576.8.meta")?.shape, [17, 9]);
    assertEquals(file.tensors.get("t576.8.tile_scale")?.shape, [2, 36]);
  }));

Deno.test("packed file: a directory of layers that holds anything else is left as it is", () =>
  inDirectory(async (directory) => {
    const layers = `${directory}/q.safetensors.layers`;
    const strange: Readonly<Record<string, (path: string) => Promise<void>>> = {
      "notes.txt": (path) => Deno.writeTextFile(path, "mine"),
      "layer-0.safetensors": (path) => Deno.mkdir(path),
      "layer-1.safetensors": (path) => Deno.symlink(FIXTURE, path),
      "layer-x.safetensors": (path) => Deno.writeTextFile(path, "mine"),
    };
    for (const [name, make] of Object.entries(strange)) {
      await Deno.mkdir(layers);
      await Deno.writeTextFile(`${layers}/layer-7.safetensors`, "");
      await make(`${layers}/${name}`);
      const message = `${layers} holds "${name}", must hold nothing but layers to be removed`;
      await assertRejects(() => writeFixture(directory, "q"), Error, message);
      assertEquals(filesIn(layers), [name, "layer-7.safetensors"].sort());
      await Deno.remove(layers, { recursive: true });
    }
  }));

Deno.test("packed file: a quantizer that measures its input is refused without a calibration text", () =>
  inDirectory(async (directory) => {
    const wanted = [
      [twobitQuantizer(), "the quantizer has error feedback but there is no calibration text"],
      [twobitQuantizer({}, "search"), "the quantizer weighs channels but there is no calibration text"],
    ] as const;
    for (const [quantizer, message] of wanted) {
      const plan = { calibration: [], correctTarget: false, quantizerOf: () => quantizer };
      await assertRejects(() => writeFixture(directory, "q", plan), TypeError, message);
    }
  }));

Deno.test("packed file: excluded matrices stay as they were, everything else of the checkpoint is carried", () =>
  inDirectory(async (directory) => {
    const path = await writeFixture(directory, "part", {
      quantizerOf: (layer, kind) => layer === 1 || kind === "v_proj" ? undefined : twobitQuantizer(),
    });
    using source = await openModel(FIXTURE);
    using packed = await openPacked(path);
    const original = await readModel(source);
    const model = await readModel(packed);
    assertEquals([...packed.packed.keys()].length, LINEAR_KINDS.length - 1);
    assertEquals(model.config, original.config);
    for (const [index, layer] of model.layers.entries()) {
      for (const kind of LINEAR_KINDS) {
        const same = layer.linears[kind].weights.every((w, i) => w === original.layers[index].linears[kind].weights[i]);
        assertEquals(same, !packed.packed.has(linearName(index, kind)), linearName(index, kind));
      }
      assertEquals(layer.attentionNorm, original.layers[index].attentionNorm);
    }
    assertEquals(model.embedding, original.embedding);
  }));

Deno.test("dequantize: the Hugging Face directory holds the decoded weights, rounded to f16, and nothing packed", () =>
  inDirectory(async (directory) => {
    const path = await writeFixture(directory, "q");
    using packed = await openPacked(path);
    await writeHuggingFaceDirectory(packed, `${directory}/hf`);
    using written = await openModel(`${directory}/hf`);
    using source = await openModel(FIXTURE);
    assertEquals(written.tensors.map(({ name }) => name).sort(), source.tensors.map(({ name }) => name).sort());
    const decoded = await readModel(packed);
    const model = await readModel(written);
    assert(written.tensors.every(({ dtype }) => dtype === "F16"));
    assertEquals(JSON.parse(await Deno.readTextFile(`${directory}/hf/config.json`)).dtype, "float16");
    for (const [index, { linears }] of model.layers.entries()) {
      for (const kind of LINEAR_KINDS) {
        assertEquals(linears[kind].weights, decoded.layers[index].linears[kind].weights.map(Math.f16round));
      }
    }
  }));

Deno.test("packed file: what isn't one is refused with what was found and what is wanted", () =>
  inDirectory(async (directory) => {
    await assertRejects(() => openPacked(`${FIXTURE}/model.safetensors`), SyntaxError, "must be twobit");
    await assertRejects(() => openModel(`${directory}/none`), SyntaxError, "does not exist");
    const path = await writeFixture(directory, "q");
    const bytes = await Deno.readFile(path);
    const text = new TextDecoder("latin1").decode(bytes); // a letter a byte
    const damage = async (from: string, to: string) => {
      assert(text.includes(from) && from.length === to.length);
      const damaged = `${directory}/damaged.safetensors`;
      const copy = bytes.slice();
      copy.set(new TextEncoder().encode(to), text.indexOf(from));
      await Deno.writeFile(damaged, copy);
      return damaged;
    };
    const cases: readonly (readonly [from: string, to: string, message: string])[] = [
      ['"version":"2"', '"version":"3"', "version is 3, must be 1 or 2"],
      ['"version":"2"', '"version":"1"', "block_groups is missing, must be 8"],
      ['"tile_rows":"16"', '"tile_rows":"32"', "tile_rows is 32, must be 16"],
      ["0.625,0.875", "0.625,0.975", "base_zeros is"],
      ['\\"refineEvery\\":8', '\\"refineEvery\\":9', "must have positive rows and channels and refineEvery of"],
      ['\\"refineEvery\\":8', '\\"refineEvery\\":2', "must be U32"],
      ['q_proj.base"', 'q_proj.bass"', "no tensor"],
    ];
    for (const [from, to, message] of cases) {
      const damaged = await damage(from, to);
      const read = async () => {
        using checkpoint = await openModel(damaged);
        await readModel(checkpoint);
      };
      await assertRejects(read, SyntaxError, message);
    }
  }));

Deno.test("packed file: 10,000 random byte flips give an error or finite weights, never a crash or NaN", () =>
  inDirectory(async (directory) => {
    const path = await writeFixture(directory, "q");
    const bytes = await Deno.readFile(path);
    const headerEnd = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const random = createRandom(7);
    let refused = 0;
    for (let i = 0; i < 10_000; i++) {
      // A third of the flips hit the header, which is a small part of the file.
      const at = random.integer(i % 3 === 0 ? headerEnd : bytes.length);
      const before = bytes[at];
      bytes[at] ^= 1 << random.integer(8);
      try {
        using checkpoint = await readPackedCheckpoint("damaged", bytesSource("damaged", bytes));
        const names = [...checkpoint.packed.keys()];
        const name = names[random.integer(names.length)];
        const { rows, channels } = checkpoint.packed.get(name)!;
        const weights = await checkpoint.read(`${name}.weight`, [rows, channels]);
        assert(weights.every(Number.isFinite), `flip of byte ${at} gave a weight that is not finite`);
        for (const info of checkpoint.file.tensors.values()) {
          if (info.sizeBytes < 100) await readTensorBytes(checkpoint.file, info);
        }
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        refused++;
      }
      bytes[at] = before;
    }
    assert(refused > 1000, `${refused} of 10,000 flips were refused`);
  }));
