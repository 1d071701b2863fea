import { create } from "webgpu";
import * as attention from "../../kernels/attention/wgsl.ts";
import * as backward from "../../kernels/backward/wgsl.ts";
import * as gpu from "../../kernels/gpu/wgsl.ts";
import * as layer from "../../kernels/layer/wgsl.ts";
import * as matrix from "../../kernels/matrix/wgsl.ts";
import * as product from "../../kernels/product/wgsl.ts";
import * as quantize from "../../kernels/quantize/wgsl.ts";
import * as tokens from "../../kernels/tokens/wgsl.ts";
import { inDialect } from "../../kernels/gpu/dialect.ts";
import { bindingEntries, joinShader, partsOf, type WgslFiles } from "../../kernels/gpu/shader.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../assert.ts";
import { testGpu } from "./helpers.ts";

/**
 * Chrome's shader compiler, Dawn, without a GPU. It checks what Deno's doesn't, uniformity of barriers and subgroup
 * operations first of all.
 */
// Dawn crashes when its instance is collected, so each test uses it last.
const dawn = create(["backend=null", "enable-dawn-features=allow_unsafe_apis"]);
const adapter = await dawn.requestAdapter();
const matrixFeature = "chromium-experimental-subgroup-matrix";
const features = ["subgroups", "shader-f16", matrixFeature] as GPUFeatureName[];
const device = await adapter!.requestDevice({ requiredFeatures: features });

/** All rooms that have shaders, with their files. */
const ROOMS: Readonly<Record<string, WgslFiles>> = {
  gpu,
  matrix,
  tokens,
  product,
  "product/few": product,
  attention,
  layer,
  quantize,
  backward,
};

/** Names of the WGSL files in a folder. */
function filesIn(folder: string): string[] {
  const entries = Array.from(Deno.readDirSync(new URL(`../../kernels/${folder}`, import.meta.url)));
  return entries.flatMap(({ name }) => name.endsWith(".wgsl") ? [name.slice(0, -".wgsl".length)] : []);
}

/** Every variant of a shader: each choice of a part for each interface that it needs. */
function variantsOf(files: WgslFiles, main: string, chosen: readonly string[] = []): { name: string; code: string }[] {
  const { choice } = partsOf(files, main, chosen);
  if (choice) return choice.among.flatMap((part) => variantsOf(files, main, [...chosen, part]));
  return [{ name: [main, ...chosen].join(" "), code: joinShader(files, main, ...chosen).code }];
}

const variants = Object.entries(ROOMS).flatMap(([room, files]) =>
  filesIn(room).flatMap((main) => variantsOf(files, main))
);

async function compile(code: string): Promise<GPUError | null> {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: inDialect(code, { enableLines: true, matrixFeature }) });
  return await device.popErrorScope();
}

for (const { name, code } of variants.filter(({ name }) => !name.startsWith("decode_layer"))) {
  Deno.test(`${name} compiles as in Chrome`, async () => {
    const error = await compile(code);
    assert(error === null, error?.message);
    assert(dawn && adapter);
  });
}

/** What decodeLayers makes of layers that suit it, in a worker of its own, inside Deno or as if outside. */
async function decodeLayersIn(where: "deno" | "browser"): Promise<string> {
  const name = `${where} ${(await testGpu()).profile.subgroupSize}`;
  const worker = new Worker(new URL("platform_worker.ts", import.meta.url), { type: "module", name });
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => {
    event.preventDefault();
    reject(new Error(event.message));
  };
  return await promise.finally(() => worker.terminate());
}

// Its 16 storage buffers are more than the 10 that browsers offer, and the sizes of its stages are variables, which
// Chrome's compiler doesn't take for uniform. So it is for Deno, and elsewhere layers run operation by operation.
Deno.test("decode_layer doesn't compile as in Chrome, and layers that suit it are refused outside Deno alone", async () => {
  const layers = variants.filter(({ name }) => /^decode_layer .*exchange_subgroup/.test(name));
  assertEquals(layers.length, 4, "formats of weights by those of keys and values");
  for (const { code } of layers) {
    const error = await compile(code);
    assertStringIncludes(error?.message ?? "compiled", "must only be called from uniform control flow");
  }
  assertEquals(await decodeLayersIn("deno"), "dispatches");
  assertEquals(await decodeLayersIn("browser"), "refused");
  assert(dawn && adapter);
});

Deno.test("every WGSL file of kernels/ is among the shaders of its room, by its name, and part of one", async () => {
  const files = Object.entries(ROOMS).flatMap(([room, known]) =>
    (["matrix", "product/few"].includes(room) ? [room] : [room, `${room}/parts`]).flatMap((folder) =>
      filesIn(folder).map((name) => ({ path: `${folder}/${name}.wgsl`, code: known[name] }))
    )
  );
  for (const { path, code } of files) {
    assertEquals(code, await Deno.readTextFile(new URL(`../../kernels/${path}`, import.meta.url)), path);
    const own = code.replace(/^override .*\n/gm, "");
    assert(variants.some((variant) => variant.code.includes(own)), `${path} is part of no shader`);
  }
  assert(files.length > 70);
});

Deno.test("Shaders say which part is missing, is not needed, or is not bound", () => {
  const files = {
    main: "// needs: b a\nM",
    plain: "// needs: c\nP",
    a: "// needs: c\nA",
    b: "// needs: kind c\nB",
    c: "C",
    d: "// is: kind\n// needs: b\nD",
  };
  const shader = joinShader(files, "main", "d");
  assertEquals(shader.code.split("\n").filter((line) => !line.startsWith("//")), ["M", "B", "D", "C", "A"]);
  assert(joinShader(files, "main", "d") === shader);
  assertThrows(() => joinShader(files, "main"), TypeError, "main needs kind, must choose d");
  assertThrows(() => joinShader(files, "plain", "d"), TypeError, "plain does not need d");
  assertThrows(
    () => joinShader(product, "f16_gemm"),
    TypeError,
    "must choose matrix_few or matrix_tile or narrow_tile or wide_tile",
  );
  const buffer = {} as GPUBuffer;
  const { label, bindings } = joinShader(tokens, "argmax", "score_logit");
  assertEquals(
    bindingEntries({ label, bindings }, { candidates: buffer, logits: buffer }).map(({ binding }) => binding),
    [
      1,
      0,
    ],
  );
  assertThrows(() => bindingEntries({ label, bindings }, { logits: buffer }), TypeError, "no buffer for candidates");
  const surplus = { logits: buffer, candidates: buffer, x: buffer };
  assertThrows(
    () => bindingEntries({ label, bindings }, surplus),
    TypeError,
    "argmax binds no x, must be one of logits",
  );
});
