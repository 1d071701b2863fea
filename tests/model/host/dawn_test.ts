import { describeAdapter } from "../../../kernels/gpu/adapter.ts";
import { inDialect } from "../../../kernels/gpu/dialect.ts";
import { openGpu } from "../../../kernels/gpu/gpu.ts";
import { dawnVersion, openDawn } from "../../../model/host/dawn.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

Deno.test("the first Dawn that opens replaces the process's setImmediate, one that fails leaves it", async () => {
  const globals = globalThis as unknown as { setImmediate: unknown };
  const before = globals.setImmediate;
  await assertRejects(() => openDawn(["a flag without a value"]), Error, "<key>=<value>");
  assert(globals.setImmediate === before);
  await openDawn(["backend=null"]);
  const replaced = globals.setImmediate;
  assert(replaced !== before);
  await openDawn(["backend=null"]);
  assert(globals.setImmediate === replaced);
});

Deno.test("both WebGPUs say what they can do, each in one process with the other", async () => {
  const dawn = await openDawn(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
  const { capabilities } = (await describeAdapter(dawn))!;
  assertEquals(capabilities, {
    implementation: "Dawn",
    enableLines: true,
    checksUniformity: true,
    unlistedFeatures: false,
    blockingMaps: false,
    matrixFeature: "chromium-experimental-subgroup-matrix",
    subgroupMatrices: [],
  });
  using gpu = await openGpu({ webgpu: dawn });
  assertEquals([...gpu.features].includes("chromium-experimental-subgroup-matrix"), true);
  assertEquals(gpu.profile.matrixUnits, false);
  using own = await openGpu();
  const { implementation, enableLines, blockingMaps, subgroupMatrices } = own.capabilities;
  assertEquals([implementation, enableLines, blockingMaps, subgroupMatrices.length], ["Deno", false, true, 0]);
  assertEquals(dawnVersion(), "0.6.2");
});

Deno.test("while something is awaited Dawn asks for it every 0.2 ms at most: each time leaves an object behind", async () => {
  const dawn = await openDawn(["backend=null"]);
  const adapter = await dawn.requestAdapter();
  const device = await adapter!.requestDevice();
  const start = performance.now();
  for (let i = 0; i < 50; i++) await device.queue.onSubmittedWorkDone();
  assert(performance.now() - start >= 50 * 0.2);
  assert(dawn && adapter);
});

Deno.test("inDialect enables what a shader uses, by the name that the compiler has for it", () => {
  const code = "// f16\nalias L = subgroup_matrix_left<f16, 16, 16>;\nlet a = subgroupAdd(1);";
  assertEquals(inDialect(code, { enableLines: false }), code);
  assertEquals(
    inDialect(code, { enableLines: true, matrixFeature: "chromium-experimental-subgroup-matrix" }).split("\n").slice(
      0,
      4,
    ),
    [
      "enable f16;",
      "enable subgroups;",
      "enable chromium_experimental_subgroup_matrix;",
      "diagnostic(off, chromium.subgroup_matrix_uniformity);",
    ],
  );
  assertStringIncludes(inDialect(code, { enableLines: true }), "enable subgroup_matrix;\ndiagnostic(off, subgroup_m");
  assertEquals(inDialect("// f16, subgroupAdd()", { enableLines: true }), "// f16, subgroupAdd()");
});

Deno.test("where Dawn is not installed its error says how it is", () =>
  inDirectory(async (directory) => {
    for (const file of ["dawn.ts", "garbage.ts"]) {
      await Deno.copyFile(`${ROOT}model/host/${file}`, `${directory}/${file}`);
    }
    await Deno.writeTextFile(`${directory}/open.ts`, 'import { openDawn } from "./dawn.ts";\nawait openDawn();\n');
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", `--config=${ROOT}deno.json`, `${directory}/open.ts`],
    }).output();
    assertEquals(code, 1);
    const message = "Dawn is not installed, want it in node_modules: deno install npm:webgpu@0.6.2";
    assertStringIncludes(new TextDecoder().decode(stderr), message);
  }));
