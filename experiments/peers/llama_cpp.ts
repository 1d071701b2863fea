// llama.cpp with CUDA, measured by its own llama-bench on random weights in a published model's shape. Its source comes
// out of the Python package llama-cpp-python, which needs no other network than PyPI.
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { pathExists } from "../../model/host/path_exists.ts";
import type { ModelShape } from "../../model/llama/shapes.ts";
import { parseJson } from "../results/parse_json.ts";
import type { PeerValue } from "../results/peers.ts";
import type { PeerMeasurement, PeerRun } from "./peer_run.ts";
import { GGUF_FORMATS, type GgufFormat, writeRandomGguf } from "./random_gguf.ts";
import { runProgram } from "./run_program.ts";

const PACKAGE = "llama-cpp-python==0.3.36";
/** Folders that the build doesn't need; without them the source is 11 MB instead of 77. */
const UNNEEDED = ["models", "docs", "media", "tests", "benches", "gguf-py"];

/** Contexts of our own table. */
const DEPTHS = [128, 1024, 4096];
const [PROMPT, GENERATED, REPETITIONS] = [512, 64, 9];

export interface LlamaCppPlan {
  /** Archive of the package, or of what {@linkcode packSource} leaves of it; downloaded where it isn't given. */
  readonly source?: string;
  /** Folder of source, build and weights; what is finished there is used again. */
  readonly work: string;
  /** CMake, by default the one in PATH. */
  readonly cmake?: string;
  /** CUDA architecture, such as 90 for an H100 or H200. */
  readonly architecture: string;
  readonly shape: ModelShape;
  readonly seed: number;
  readonly onProgress: (step: string) => void;
}

/** Downloads the package's source. Returns the archive's path. */
export async function downloadSource(work: string): Promise<string> {
  await runProgram("python3", ["-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", work, PACKAGE]);
  return join(work, `${folderOfPackage()}.tar.gz`);
}

function folderOfPackage(): string {
  return PACKAGE.replaceAll("-", "_").replace("==", "-");
}

/** Writes what building needs of the package's archive to a smaller one. */
export async function packSource(archive: string, work: string, out: string): Promise<void> {
  const folder = folderOfPackage();
  const part = await Deno.makeTempDir({ dir: work });
  try {
    await runProgram("tar", ["-xzf", archive, "-C", part]);
    const without = UNNEEDED.map((name) => `--exclude=${folder}/vendor/llama.cpp/${name}`);
    await runProgram("tar", ["-C", part, ...without, "-czf", out, `${folder}/vendor/llama.cpp`]);
  } finally {
    await Deno.remove(part, { recursive: true });
  }
}

/**
 * Builds llama-bench and writes the weights meanwhile. What an earlier call finished is not made again, and a build that was
 * interrupted goes on.
 *
 * @returns the program's path
 */
export async function prepareLlamaCpp(plan: LlamaCppPlan): Promise<string> {
  await Deno.mkdir(plan.work, { recursive: true });
  plan.onProgress("building llama-bench, writing weights (what is there stays)");
  const writeAll = async () => {
    for (const format of GGUF_FORMATS) {
      const path = weightsPath(plan, format);
      // A file is there only when it is whole.
      if (!await pathExists(path)) await writeRandomGguf(path, plan.shape, format, CONTEXT, plan.seed);
    }
  };
  const [binary] = await Promise.all([build(plan), writeAll()]);
  return binary;
}

/** Longest context of the weights. */
const CONTEXT = Math.max(...DEPTHS) + PROMPT;

function weightsPath({ work, shape }: LlamaCppPlan, format: GgufFormat): string {
  return join(work, `${shape.name}-${format}.gguf`);
}

/** Measures prompts and generation in both formats, with what {@linkcode prepareLlamaCpp} makes. */
export async function measureLlamaCpp(plan: LlamaCppPlan): Promise<PeerRun> {
  const { shape, architecture, onProgress } = plan;
  const binary = await prepareLlamaCpp(plan);
  const measurements: PeerMeasurement[] = [];
  let gpu = "";
  for (const format of GGUF_FORMATS) {
    for (const args of BENCHES) {
      onProgress(`llama-bench ${format} ${args.join(" ")}`);
      const printed = await runProgram(binary, ["-m", weightsPath(plan, format), ...args, ...COMMON]);
      const found = parseLlamaBench(printed);
      if (found.gpu === "" || (gpu !== "" && found.gpu !== gpu)) {
        throw new Error(`llama-bench ran on ${found.gpu || "no GPU"}, must run on ${gpu || "one"} throughout`);
      }
      gpu = found.gpu;
      measurements.push(...found.measurements.map((each) => ({ ...each, model: shape.name, format })));
    }
  }
  return {
    program: "llama.cpp CUDA",
    version: PACKAGE.replace("==", " "),
    gpu,
    built: `CMake, ${buildOptions(architecture).join(" ")}`,
    command: BENCHES.map((args) => ["llama-bench", ...args, ...COMMON].join(" ")).join("; "),
    measurements,
  };
}

/** Arguments of llama-bench: a prompt in an empty cache; generation after so many tokens. */
const BENCHES = [
  ["-p", String(PROMPT), "-n", "0"],
  ["-p", "0", "-n", String(GENERATED), "-d", DEPTHS.join(",")],
] as const;
const COMMON = ["-r", String(REPETITIONS), "-fa", "1", "-ngl", "99", "-o", "json"] as const;

function buildOptions(architecture: string): string[] {
  const off = ["BUILD_SHARED_LIBS", ...["TESTS", "EXAMPLES", "SERVER", "APP"].map((part) => `LLAMA_BUILD_${part}`)];
  const options = { CMAKE_BUILD_TYPE: "Release", GGML_CUDA: "ON", CMAKE_CUDA_ARCHITECTURES: architecture };
  return [...Object.entries(options), ...off.map((name) => [name, "OFF"])].map(([name, value]) => `-D${name}=${value}`);
}

async function build(plan: LlamaCppPlan): Promise<string> {
  const place = await placeOfSource(plan);
  const out = join(place, "build");
  const binary = join(out, "bin", "llama-bench");
  const options = buildOptions(plan.architecture);
  // Says with which options the program that is there was built; written last.
  const finished = join(out, "finished.txt");
  const isBuilt = await Deno.readTextFile(finished).then((text) => text === options.join(" "), () => false);
  if (isBuilt && await pathExists(binary)) return binary;
  const cmake = plan.cmake ?? "cmake";
  await runProgram(cmake, ["-S", await extractSource(plan, place), "-B", out, ...options]);
  const jobs = String(navigator.hardwareConcurrency);
  await runProgram(cmake, ["--build", out, "--target", "llama-bench", "--parallel", jobs]);
  await Deno.writeTextFile(finished, options.join(" "));
  return binary;
}

/** Folder of a source and its build, by version and the given archive's hash: another source is built anew. */
async function placeOfSource({ source, work }: LlamaCppPlan): Promise<string> {
  const hash = source && createHash("sha256").update(await Deno.readFile(source)).digest("hex").slice(0, 12);
  return join(work, `${folderOfPackage()}-${hash ?? "downloaded"}`);
}

/** Path of llama.cpp's source, extracted where it isn't there; it appears when it is whole. */
async function extractSource({ source, work }: LlamaCppPlan, place: string): Promise<string> {
  const folder = join(place, "source");
  if (!await pathExists(folder)) {
    const archive = source ?? await downloadSource(work);
    const part = join(place, "extracting");
    await Deno.mkdir(part, { recursive: true });
    await runProgram("tar", ["-xzf", archive, "-C", part]);
    await Deno.rename(join(part, folderOfPackage()), folder);
  }
  return join(folder, "vendor", "llama.cpp");
}

interface LlamaBench {
  readonly gpu: string;
  readonly measurements: readonly Omit<PeerMeasurement, "model" | "format">[];
}

/**
 * What llama-bench's JSON says.
 *
 * @throws {SyntaxError} when it isn't that
 * @throws {Error} when it didn't run with CUDA on a GPU
 */
export function parseLlamaBench(text: string): LlamaBench {
  const tests = parseJson<unknown>("llama-bench's output", text);
  if (!Array.isArray(tests) || tests.length === 0) {
    throw new SyntaxError(`llama-bench's output is ${text.slice(0, 60)}, must be an array of tests`);
  }
  for (const { backends, gpu_info: gpu, n_gpu_layers: layers } of tests) {
    if (/\bCUDA\b/.test(backends) && gpu && layers > 0) continue;
    const found = `backends ${backends}, gpu_info "${gpu}", n_gpu_layers ${layers}`;
    throw new Error(`llama-bench ran with ${found}, must run with CUDA, a GPU and layers on it`);
  }
  const measurements = tests.map((test, i) => {
    const { n_prompt: prompt, n_gen: generated, n_depth: context, samples_ts: samples } = test ?? {};
    const sizes = { n_prompt: prompt, n_gen: generated, n_depth: context };
    for (const [key, size] of Object.entries(sizes)) {
      if (!Number.isInteger(size)) throw new SyntaxError(`llama-bench's test ${i} has ${key} ${size}, must be a count`);
    }
    if (!Array.isArray(samples) || !samples.every((sample) => sample > 0 && Number.isFinite(sample))) {
      throw new SyntaxError(`llama-bench's test ${i} has samples_ts ${samples}, must be numbers above 0`);
    }
    if ((prompt > 0) === (generated > 0)) {
      throw new SyntaxError(`llama-bench's test ${i} has n_prompt ${prompt} and n_gen ${generated}, one must be 0`);
    }
    const key: PeerValue = prompt > 0 ? "prefill_tokens_per_s" : "decode_tokens_per_s";
    return { key, context, prompt: prompt > 0 ? prompt : null, samples };
  });
  return { gpu: tests[0].gpu_info, measurements };
}
