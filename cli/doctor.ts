// `deno task doctor`: what this machine has, and what follows for the experiments.
import { type AdapterDescription, describeAdapter, isPlannedFor } from "../kernels/gpu/adapter.ts";
import { MULTIPROCESSORS } from "../kernels/gpu/device_profile.ts";
import { deviceName } from "../experiments/provenance.ts";
import { EXPERIMENTS } from "../experiments/registry.ts";
import { openDawn } from "../model/host/dawn.ts";
import type { Command } from "./command.ts";

/** Deno version that the suite is tested with. */
const TESTED_DENO = "2.9.6";

/** Memory that a run on the embedded model needs, in GiB. */
const NEEDED_GIB = 4;

export const doctor: Command = {
  name: "doctor",
  summary: "Says what this machine has: Deno, GPU, memory; which experiments will run; how to get what is missing.",
  options: { json: { help: "Print JSON." } },
  async run(options) {
    const report = await examine();
    console.log(options.json === true ? JSON.stringify(report, null, 1) : describe(report));
    return 0;
  },
};

async function examine() {
  const adapter = await describeAdapter();
  const { total, available } = Deno.systemMemoryInfo();
  return {
    deno: Deno.version.deno,
    testedDeno: TESTED_DENO,
    cores: navigator.hardwareConcurrency,
    memoryGiB: { total: total / 2 ** 30, available: available / 2 ** 30 },
    adapter: adapter ?? null,
    dawn: await describeDawn(),
    device: deviceName(adapter),
    experiments: EXPERIMENTS.map(({ id, needsGpu }) => ({ id, measured: !needsGpu || adapter?.software === false })),
    advice: advise(adapter, available / 2 ** 30),
  };
}

/** The adapter of the other WebGPU, or what keeps from it. */
async function describeDawn(): Promise<AdapterDescription | string> {
  try {
    return await describeAdapter(await openDawn()) ?? "no adapter";
  } catch (error) {
    return (error as Error).message;
  }
}

function advise(adapter: AdapterDescription | undefined, availableGiB: number): string[] {
  const advice: string[] = [];
  if (Deno.version.deno !== TESTED_DENO) {
    advice.push(`Deno ${Deno.version.deno} is not the tested ${TESTED_DENO}: npm install -g deno@${TESTED_DENO}`);
  }
  if (!adapter) {
    advice.push(
      "No WebGPU adapter. Linux: sh setup.sh, or apt-get install mesa-vulkan-drivers libvulkan1 for the software one; " +
        "for a GPU install its vendor's Vulkan driver.",
    );
  } else if (adapter.software) {
    advice.push("The adapter is software: kernels run and are checked, timings are reported as not measured.");
  } else if (!isPlannedFor(adapter.name)) {
    advice.push(
      `${adapter.name} is no GPU that plans were measured on, and WebGPU doesn't tell how many multiprocessors it ` +
        `has: work is spread over ${MULTIPROCESSORS}, as on an H100. Where layers run whole, what really runs side ` +
        "by side is counted at start; should that not last, they run operation by operation.",
    );
  }
  if (availableGiB < NEEDED_GIB) {
    advice.push(`${availableGiB.toFixed(1)} GiB of memory are available, a full run needs about ${NEEDED_GIB}`);
  }
  return advice;
}

function describe(
  { deno, cores, memoryGiB, adapter, dawn, device, experiments, advice }: Awaited<ReturnType<typeof examine>>,
): string {
  const list = (measured: boolean) => experiments.filter((e) => e.measured === measured).map(({ id }) => id).join(", ");
  return [
    `Deno         ${deno}`,
    `cores        ${cores}`,
    `memory       ${memoryGiB.available.toFixed(1)} of ${memoryGiB.total.toFixed(1)} GiB available`,
    ...(adapter ? describeLines("adapter", adapter) : ["adapter      none"]),
    ...(typeof dawn === "string" ? [`with Dawn    ${dawn}`] : describeLines("with Dawn", dawn)),
    `results to   results/${device}`,
    `will run     ${list(true) || "none"}`,
    `not measured ${list(false) || "none"}`,
    ...advice.map((line) => `! ${line}`),
  ].join("\n");
}

function describeLines(title: string, { name, software, features, limits, capabilities }: AdapterDescription) {
  const mib = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MiB`;
  const matrices = capabilities.subgroupMatrices.map(({ componentType, resultComponentType, M, N, K }) =>
    `${componentType} -> ${resultComponentType} ${M}x${N}x${K}`
  );
  return [
    `${title.padEnd(12)} ${name}${software ? " (software)" : ""}`,
    `features     ${features.join(", ")}`,
    `limits       buffer ${mib(limits.maxBufferBytes)}, storage binding ${
      mib(limits.maxStorageBindingBytes)
    }, ${limits.maxStorageBuffers} storage buffers, workgroup memory ${limits.maxWorkgroupBytes} bytes`,
    `matrix units ${matrices.join(", ") || "out of reach"}`,
    `layers       ${capabilities.checksUniformity ? "operation by operation" : "several in one dispatch"}`,
  ];
}
