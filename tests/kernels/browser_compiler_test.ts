import { create } from "webgpu";
import { attentionShaders } from "../../kernels/attention/shaders.ts";
import { withEnableLines } from "../../kernels/gpu/dialect.ts";
import { bindingEntries, createShaders, type Shaders } from "../../kernels/gpu/shader.ts";
import { gpuShaders } from "../../kernels/gpu/shaders.ts";
import { layerShaders } from "../../kernels/layer/shaders.ts";
import { matrixShaders } from "../../kernels/matrix/shaders.ts";
import { productShaders } from "../../kernels/product/shaders.ts";
import { quantizeShaders } from "../../kernels/quantize/shaders.ts";
import { tokenShaders } from "../../kernels/tokens/shaders.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "../assert.ts";
import { testGpu } from "./helpers.ts";

/**
 * Chrome's shader compiler, Dawn, without a GPU. It checks what Deno's doesn't, uniformity of barriers and subgroup
 * operations first of all.
 */
// Dawn crashes when its instance is collected, so each test uses it last.
const dawn = create(["backend=null"]);
const adapter = await dawn.requestAdapter();
const features = ["subgroups"] as GPUFeatureName[];
const device = await adapter!.requestDevice({ requiredFeatures: features });

/** All rooms that have shaders. */
const ROOMS = {
  gpu: gpuShaders,
  matrix: matrixShaders,
  tokens: tokenShaders,
  product: productShaders,
  attention: attentionShaders,
  layer: layerShaders,
  quantize: quantizeShaders,
};

/** Every variant of a shader: each choice of a part for each interface that it needs. */
function variantsOf<M extends string, P extends string>(
  shaders: Shaders<M, P>,
  main: M,
  chosen: readonly P[] = [],
): { name: string; code: string }[] {
  const open = shaders.openChoice(main, chosen);
  if (open) return open.among.flatMap((part) => variantsOf(shaders, main, [...chosen, part]));
  return [{ name: [main, ...chosen].join(" "), code: shaders.shader(main, ...chosen).code }];
}

const variants = Object.values<Shaders<string, string>>(ROOMS).flatMap((shaders) =>
  Object.keys(shaders.mains).flatMap((main) => variantsOf(shaders, main))
);

async function compile(code: string): Promise<GPUError | null> {
  device.pushErrorScope("validation");
  device.createShaderModule({ code: withEnableLines(code) });
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
  const name = `${where} ${(await testGpu()).subgroupSize}`;
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
  const layers = variants.filter(({ name }) => name.startsWith("decode_layer") && name.endsWith("exchange_subgroup"));
  for (const { code } of layers) {
    const error = await compile(code);
    assertStringIncludes(error?.message ?? "compiled", "must only be called from uniform control flow");
  }
  assertEquals(await decodeLayersIn("deno"), "dispatches");
  assertEquals(await decodeLayersIn("browser"), "refused");
  assert(dawn && adapter);
});

Deno.test("every WGSL file of kernels/ is among the shaders of its room, by its name, and part of one", async () => {
  const files = Object.entries<Shaders<string, string>>(ROOMS).flatMap(([room, { mains, parts }]) => {
    const filesIn = (folder: string, known: Readonly<Record<string, string>>) =>
      Array.from(Deno.readDirSync(new URL(`../../kernels/${folder}`, import.meta.url)), ({ name }) => name)
        .filter((name) => name.endsWith(".wgsl"))
        .map((name) => ({ path: `${folder}/${name}`, code: known[name.slice(0, -".wgsl".length)] }));
    return [...filesIn(room, mains), ...(room === "matrix" ? [] : filesIn(`${room}/parts`, parts))];
  });
  for (const { path, code } of files) {
    assertEquals(code, await Deno.readTextFile(new URL(`../../kernels/${path}`, import.meta.url)), path);
    assert(variants.some((variant) => variant.code.includes(code)), `${path} is part of no shader`);
  }
  assert(files.length > 70);
});

Deno.test("Shaders say which part is missing, is not needed, or is not bound", () => {
  const shaders = createShaders({ main: "// needs: b a\nM", plain: "// needs: c\nP" }, {
    a: "// needs: c\nA",
    b: "// needs: kind c\nB",
    c: "C",
    d: "// is: kind\n// needs: b\nD",
  });
  const { code } = shaders.shader("main", "d");
  assertEquals(code.split("\n").filter((line) => !line.startsWith("//")), ["M", "B", "D", "C", "A"]);
  assert(shaders.shader("main", "d") === shaders.shader("main", "d"));
  assertThrows(() => shaders.shader("main"), TypeError, "main needs kind, must choose d");
  assertThrows(() => shaders.shader("plain", "d"), TypeError, "plain with d does not need d");
  assertThrows(() => productShaders.shader("f16_gemm"), TypeError, "must choose narrow_tile or wide_tile");
  const buffer = {} as GPUBuffer;
  const { label, bindings } = tokenShaders.shader("argmax");
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
