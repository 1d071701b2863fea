import { create } from "webgpu";
import { ADD_BIAS_CODE } from "../../kernels/tokens/add_bias.ts";
import { COMBINE_ATTENTION_CODE } from "../../kernels/product/combine_attention.ts";
import { JOIN_SPLITS_CODE } from "../../kernels/product/join_splits.ts";
import { decodeAttentionCode } from "../../kernels/attention/decode_attention.ts";
import { decodeLayerCode } from "../../kernels/layer/decode_layer.ts";
import { ELEMENTWISE_CODE } from "../../kernels/matrix/elementwise.ts";
import { f16GemmCode } from "../../kernels/product/f16_gemm.ts";
import { f16GemvCode } from "../../kernels/product/f16_gemv.ts";
import { FACTORIZE_CODE } from "../../kernels/quantize/factorize.ts";
import { FEEDBACK_BLOCK_CODE } from "../../kernels/quantize/feedback_quantizer.ts";
import { fusedGemmCode } from "../../kernels/product/fused_gemm.ts";
import { fusedGemvCode } from "../../kernels/product/fused_gemv.ts";
import { NARROW_TILE, WIDE_TILE } from "../../kernels/product/gemm_tile.ts";
import { EMBED_TOKENS_CODE } from "../../kernels/tokens/embed_tokens.ts";
import { GROUP_QUANTIZER_CODE } from "../../kernels/quantize/group_quantizer.ts";
import { withEnableLines } from "../../kernels/gpu/dialect.ts";
import { ORDER_GROUPS_CODE } from "../../kernels/quantize/order_groups.ts";
import { OUTER_UPDATE_CODE } from "../../kernels/quantize/outer_update.ts";
import { PACK_ACTIVATIONS_CODE } from "../../kernels/product/pack_activations.ts";
import { PICK_TOKEN_CODE } from "../../kernels/tokens/pick_token.ts";
import { LOG_LIKELIHOOD_CODE } from "../../kernels/tokens/log_likelihood.ts";
import { PREFILL_ATTENTION_CODE } from "../../kernels/attention/prefill_attention.ts";
import { RMS_NORM_CODE } from "../../kernels/tokens/rms_norm.ts";
import { ROPE_CACHE_CODE } from "../../kernels/attention/rope_cache.ts";
import { SILU_PRODUCT_CODE } from "../../kernels/tokens/silu_product.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
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

const text = (path: string) => Deno.readTextFileSync(new URL(`../../kernels/${path}`, import.meta.url));
const decode = text("product/parts/decode.wgsl");

const compiled: string[] = [];

for (const kind of ["subgroup", "workgroup"]) {
  const exchangeCode = text(`gpu/parts/exchange_${kind}.wgsl`);
  const team = { lanes: 32, exchangeBytes: 4, exchangeCode };
  const shaders: Record<string, string> = {
    ...PICK_TOKEN_CODE,
    ...ELEMENTWISE_CODE,
    ...FACTORIZE_CODE,
    ...GROUP_QUANTIZER_CODE,
    "decode_attention of one query": decodeAttentionCode(team, 1),
    "decode_attention of four queries": decodeAttentionCode(team, 4),
    feedback_block: FEEDBACK_BLOCK_CODE,
    fused_gemv: fusedGemvCode(team, "packed"),
    "fused_gemv of values": fusedGemvCode(team, "vector"),
    fused_sync_gemv: fusedGemvCode(team, "packed", true),
    f16_gemv: f16GemvCode(team, "half"),
    "f16_gemv of values": f16GemvCode(team, "vector"),
    combine_attention: COMBINE_ATTENTION_CODE,
    ...Object.fromEntries([WIDE_TILE, NARROW_TILE].flatMap((tile) => [
      [`f16_gemm ${tile.name}`, f16GemmCode(tile)],
      [`fused_gemm ${tile.name}`, fusedGemmCode(tile)],
    ])),
    add_bias: ADD_BIAS_CODE,
    join_splits: JOIN_SPLITS_CODE,
    embed_tokens: EMBED_TOKENS_CODE,
    order_groups: ORDER_GROUPS_CODE,
    outer_update: OUTER_UPDATE_CODE,
    log_likelihood: LOG_LIKELIHOOD_CODE,
    prefill_attention: PREFILL_ATTENTION_CODE,
    rms_norm: RMS_NORM_CODE,
    rope_cache: ROPE_CACHE_CODE,
    silu_product: SILU_PRODUCT_CODE,
    dequantize_weights: text("product/dequantize_weights.wgsl") + text("product/parts/group.wgsl") + decode,
    add_outliers: text("product/add_outliers.wgsl"),
    pack_activations: PACK_ACTIVATIONS_CODE,
    read_memory: text("gpu/read_memory.wgsl"),
  };
  compiled.push(...Object.values(shaders));
  for (const [name, code] of Object.entries(shaders)) {
    Deno.test(`${name} with ${kind} exchange compiles as in Chrome`, async () => {
      device.pushErrorScope("validation");
      device.createShaderModule({ code: withEnableLines(code) });
      const error = await device.popErrorScope();
      assert(error === null, error?.message);
      assert(dawn && adapter);
    });
  }
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
  const team = { lanes: 32, exchangeBytes: 0, exchangeCode: text("gpu/parts/exchange_subgroup.wgsl") };
  for (const queries of [1, 4] as const) {
    device.pushErrorScope("validation");
    device.createShaderModule({ code: withEnableLines(decodeLayerCode(team, queries)) });
    const error = await device.popErrorScope();
    assertStringIncludes(error?.message ?? "compiled", "must only be called from uniform control flow");
  }
  assertEquals(await decodeLayersIn("deno"), "dispatches");
  assertEquals(await decodeLayersIn("browser"), "refused");
  assert(dawn && adapter);
});

Deno.test("every shader of kernels/ but decode_layer is among those compiled", () => {
  const kernels = new URL("../../kernels/", import.meta.url);
  const rooms = Array.from(Deno.readDirSync(kernels), ({ name }) => name);
  const names = rooms.flatMap((room) =>
    Array.from(Deno.readDirSync(new URL(`${room}/`, kernels)), ({ name }) => `${room}/${name}`)
  );
  const missing = names.filter((name) => name.endsWith(".wgsl") && !compiled.some((code) => code.includes(text(name))));
  assertEquals(missing, ["layer/decode_layer.wgsl"]);
});
