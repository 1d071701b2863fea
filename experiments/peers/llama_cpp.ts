/**
 * llama.cpp with CUDA, measured by its own llama-bench on random weights in a published model's shape. Its source comes
 * out of the Python package llama-cpp-python, which needs no other network than PyPI.
 *
 * @module
 */
import { join } from "@std/path";
import { pathExists } from "../../model/host/path_exists.ts";
import type { ModelShape } from "../../model/llama/shapes.ts";
import type { PeerValue } from "../results/peers.ts";
import type { PeerMeasurement, PeerRun } from "./peer_run.ts";
import { GGUF_FORMATS, type GgufFormat, writeRandomGguf } from "./random_gguf.ts";
import { runProgram } from "./run_program.ts";

/** The package whose source is built. */
const PACKAGE = "llama-cpp-python==0.3.36";
/** Folders that the build doesn't need; without them the source is 11 MB instead of 77. */
const UNNEEDED = ["models", "docs", "media", "tests", "benches", "gguf-py"];

/** Contexts of our own table. */
const DEPTHS = [128, 1024, 4096];
const [PROMPT, GENERATED, REPETITIONS] = [512, 64, 9];

/** What llama.cpp is built and run with. */
export interface LlamaCppPlan {
  /** Archive of the package, or of what {@linkcode packSource} leaves of it; downloaded where it isn't given. */
  readonly source?: string;
  /** Folder of source, build and weights; a build that is there is used again. */
  readonly work: string;
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
  await runProgram("tar", ["-xzf", archive, "-C", work]);
  const without = UNNEEDED.map((name) => `--exclude=${folder}/vendor/llama.cpp/${name}`);
  await runProgram("tar", ["-C", work, ...without, "-czf", out, `${folder}/vendor/llama.cpp`]);
}

/** Builds llama-bench, writes the weights meanwhile, and measures prompts and generation in both formats. */
export async function measureLlamaCpp(plan: LlamaCppPlan): Promise<PeerRun> {
  const { work, shape, architecture, onProgress } = plan;
  await Deno.mkdir(work, { recursive: true });
  const context = Math.max(...DEPTHS) + PROMPT;
  const pathOf = (format: GgufFormat) => join(work, `${shape.name}-${format}.gguf`);
  const writeAll = async () => {
    for (const format of GGUF_FORMATS) await writeRandomGguf(pathOf(format), shape, format, context, plan.seed);
  };
  onProgress("building llama-bench, writing weights");
  const [binary] = await Promise.all([build(plan), writeAll()]);
  const measurements: PeerMeasurement[] = [];
  for (const format of GGUF_FORMATS) {
    for (const args of BENCHES) {
      onProgress(`llama-bench ${format} ${args.join(" ")}`);
      const printed = await runProgram(binary, ["-m", pathOf(format), ...args, ...COMMON]);
      measurements.push(...parseLlamaBench(printed).map((found) => ({ ...found, model: shape.name, format })));
    }
  }
  return {
    program: "llama.cpp CUDA",
    version: PACKAGE.replace("==", " "),
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

async function build({ source, work, architecture }: LlamaCppPlan): Promise<string> {
  const directory = join(work, folderOfPackage(), "vendor", "llama.cpp");
  if (!await pathExists(join(directory, "CMakeLists.txt"))) {
    await runProgram("tar", ["-xzf", source ?? await downloadSource(work), "-C", work]);
  }
  const out = join(work, "build");
  await runProgram("cmake", ["-S", directory, "-B", out, ...buildOptions(architecture)]);
  const jobs = String(navigator.hardwareConcurrency);
  await runProgram("cmake", ["--build", out, "--target", "llama-bench", "--parallel", jobs]);
  return join(out, "bin", "llama-bench");
}

/** What llama-bench's JSON says. @throws {SyntaxError} when it isn't that */
export function parseLlamaBench(text: string): Omit<PeerMeasurement, "model" | "format">[] {
  let tests: unknown;
  try {
    tests = JSON.parse(text);
  } catch (cause) {
    throw new SyntaxError(`llama-bench's output is not valid JSON: ${(cause as Error).message}`, { cause });
  }
  if (!Array.isArray(tests) || tests.length === 0) {
    throw new SyntaxError(`llama-bench's output is ${text.slice(0, 60)}, must be an array of tests`);
  }
  return tests.map((test, i) => {
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
}
