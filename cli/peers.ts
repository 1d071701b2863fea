// `deno task peers`: what other programs reach on this machine's GPU.
import { join, resolve } from "@std/path";
import {
  downloadSource,
  type LlamaCppPlan,
  measureLlamaCpp,
  packSource,
  prepareLlamaCpp,
} from "../experiments/peers/llama_cpp.ts";
import { type PeerRun, peersResult } from "../experiments/peers/peer_run.ts";
import { measurePytorch } from "../experiments/peers/pytorch.ts";
import { describeDevice, describeEnvironment } from "../experiments/provenance.ts";
import { PEERS_ID } from "../experiments/results/peers.ts";
import { readResult, writeResult } from "../experiments/results/result.ts";
import { RESULTS_ROOT } from "../experiments/run.ts";
import { pathExists } from "../model/host/path_exists.ts";
import { type Command, describeCall, type OptionValues, shapeOption, textOption, UsageError } from "./command.ts";

/** Seed of random weights; speed doesn't depend on it. */
const SEED = 1;

export const peers: Command = {
  name: "peers",
  summary:
    "Measures other programs on this machine's GPU, for the tables of end_to_end and async: llama.cpp with CUDA, " +
    "built here with nvcc and CMake, on random weights in Llama-2 7B's shape (16 GB in --work), and with --python " +
    "PyTorch's f16 product. Writes results/<device>/peers.json; run `deno task render` then.",
  options: {
    source: { value: "FILE", help: "llama.cpp's source, as from --pack (default: download it with pip)." },
    pack: { value: "FILE", help: "Only download the source and write FILE (11 MB), for --source elsewhere." },
    python: { value: "PROGRAM", help: "A Python that has PyTorch with CUDA; else PyTorch is left out." },
    only: { value: "NAME", help: "llama.cpp or pytorch alone; the file keeps what it has of the other." },
    build: { help: "Only build llama.cpp and write its weights, for a later call; what is finished isn't made again." },
    architecture: { value: "N", help: "CUDA architecture to build for (default 90: H100 and H200)." },
    model: { value: "SHAPE", help: "Shape of the random weights (default llama-2-7b)." },
    work: { value: "DIR", help: "Folder of source, build and weights (default .scratch/peers)." },
    out: { value: "DIR", help: "Directory of the result file (default results/<device>)." },
  },
  async run(options) {
    const work = resolve(textOption(options, "work", ".scratch/peers"));
    await Deno.mkdir(work, { recursive: true });
    if (typeof options.pack === "string") {
      await packSource(await downloadSource(work), work, resolve(options.pack));
      console.log(options.pack);
      return 0;
    }
    const plan = readPlan(options, work);
    if (options.build === true) {
      console.log(await prepareLlamaCpp(plan));
      return 0;
    }
    const device = await describeDevice();
    if (device.software) {
      throw new Error(`the device is ${device.adapter}, must be a GPU: peers stand beside its tables`);
    }
    const directory = textOption(options, "out", join(RESULTS_ROOT, device.name));
    await Deno.mkdir(directory, { recursive: true });
    for (const measure of chooseMeasurements(options, plan)) {
      const call = describeCall("peers", options);
      const environment = await describeEnvironment({ name: "random", sha256: "none" }, SEED, call);
      const path = join(directory, `${PEERS_ID}.json`);
      const earlier = await pathExists(path) ? await readResult(path) : undefined;
      // Written after each program: what one has measured isn't lost with the next.
      const result = peersResult([await measure()], { device, environment }, earlier);
      console.log(await writeResult(directory, result));
    }
    return 0;
  },
};

const onProgress = (step: string) => console.error(`peers: ${step}`);

/** What is measured, in order: first what is quickly done, and quickly missed where it isn't there. */
function chooseMeasurements({ only, python }: OptionValues, plan: LlamaCppPlan): (() => Promise<PeerRun>)[] {
  const pytorch = () => {
    onProgress("PyTorch");
    return measurePytorch(String(python));
  };
  return [
    ...(only !== "llama.cpp" && typeof python === "string" ? [pytorch] : []),
    ...(only !== "pytorch" ? [() => measureLlamaCpp(plan)] : []),
  ];
}

/** @throws {UsageError} for an option that doesn't fit */
function readPlan(options: OptionValues, work: string): LlamaCppPlan {
  const { only, python } = options;
  if (only !== undefined && only !== "llama.cpp" && only !== "pytorch") {
    throw new UsageError(`--only is ${only}, must be llama.cpp or pytorch`);
  }
  if (only === "pytorch" && typeof python !== "string") throw new UsageError("--only pytorch needs --python");
  const shape = shapeOption(options, "model", "llama-2-7b");
  const architecture = textOption(options, "architecture", "90");
  const source = typeof options.source === "string" ? { source: resolve(options.source) } : {};
  return { work, architecture, shape, seed: SEED, onProgress, ...source };
}
