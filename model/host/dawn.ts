// Dawn, Chrome's WebGPU, inside Deno: the optional npm package `webgpu`, which is large and which nothing else needs.
import { createRequire } from "node:module";
import { toFileUrl } from "@std/path";
import { openCollector } from "./garbage.ts";

const require = createRequire(`${import.meta.dirname ?? Deno.cwd()}/`);

/** The package, and the version that the suite is tested with. */
const DAWN_PACKAGE = "webgpu@0.6.2";

/**
 * Matrix units are an unsafe feature so far, f16 on NVIDIA's GPUs one that has to be asked for, and timestamps come in
 * steps of 0.1 ms unless they are asked for whole. Checks of bounds stay, as lanes past a row's end read on
 * (product/parts/steps.wgsl), at the last one past the buffer; loads of matrices are laid out to need none
 * (gpu/parts/matrices.wgsl).
 */
const FLAGS = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Dawn asks for finished work so often while something is awaited, and objects are collected after so many times. */
const ASK_MS = 0.2;
const COLLECTED_ASKS = 2000;

/** Instances are kept: the process crashes when one is collected. */
const instances: GPU[] = [];

/**
 * Opens Dawn, for `openGpu({ webgpu })`. The first to open replaces `globalThis.setImmediate` for the whole process by
 * one that waits 0.2 ms longer and now and then collects garbage: by it Dawn asks whether the device is done.
 *
 * @throws {Error} where the package is not installed, with the command that does it
 */
export async function openDawn(flags: readonly string[] = FLAGS): Promise<GPU> {
  const { create } = await import(toFileUrl(packagePath()).href) as { create(flags: string[]): GPU };
  const instance = create([...flags]);
  if (instances.push(instance) === 1) askSeldom();
  return instance;
}

/**
 * While something is awaited Dawn asks for finished work at every turn of the event loop, by `setImmediate`, and leaves
 * an object each time. What Deno 2.9 takes to collect such objects grows with the square of their number, to seconds
 * for the 16,000 that a second brings, in which the GPU idles. So it asks less often, and they are collected early.
 */
function askSeldom(): void {
  const collect = openCollector();
  const { setImmediate } = globalThis as unknown as { setImmediate: (run: () => void) => unknown };
  let asks = 0;
  const later = (ask: (...values: unknown[]) => void, ...values: unknown[]) => {
    const dueMs = performance.now() + ASK_MS;
    const turn = () => {
      if (performance.now() < dueMs) return void setImmediate(turn);
      if (++asks % COLLECTED_ASKS === 0) collect();
      ask(...values);
    };
    return setImmediate(turn);
  };
  Object.assign(globalThis, { setImmediate: later });
}

/** Version of the package that is installed. */
export function dawnVersion(): string {
  return require("webgpu/package.json").version;
}

/** The package's file in node_modules; never fetches it. */
function packagePath(): string {
  try {
    return require.resolve("webgpu");
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new Error(`Dawn is not installed, want it in node_modules: deno install npm:${DAWN_PACKAGE}`, { cause });
  }
}
