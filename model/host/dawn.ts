// Dawn, Chrome's WebGPU, inside Deno: the optional npm package `webgpu`, which is large and which nothing else needs.
import { createRequire } from "node:module";
import { toFileUrl } from "@std/path";

const require = createRequire(`${import.meta.dirname ?? Deno.cwd()}/`);

/** The package, and the version that the suite is tested with. */
const DAWN_PACKAGE = "webgpu@0.6.2";

/**
 * Matrix units are an unsafe feature so far, f16 on NVIDIA's GPUs one that has to be asked for, and timestamps come in
 * steps of 0.1 ms unless they are asked for whole.
 */
const FLAGS = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Instances are kept: the process crashes when one is collected. */
const instances: GPU[] = [];

/**
 * Opens Dawn, for `openGpu({ webgpu })`.
 *
 * @throws {Error} where the package is not installed, with the command that does it
 */
export async function openDawn(flags: readonly string[] = FLAGS): Promise<GPU> {
  const { create } = await import(toFileUrl(packagePath()).href) as { create(flags: string[]): GPU };
  const instance = create([...flags]);
  instances.push(instance);
  return instance;
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
