/**
 * The shaders of this room.
 *
 * @module
 */
import { productShaders } from "../product/shaders.ts";
import { attentionShaders } from "../attention/shaders.ts";
import { createShaders } from "../gpu/shader.ts";
import decodeLayer from "./decode_layer.wgsl" with { type: "text" };
import mergeCells1 from "./parts/merge_cells_1.wgsl" with { type: "text" };
import mergeCells4 from "./parts/merge_cells_4.wgsl" with { type: "text" };
import relay from "./parts/relay.wgsl" with { type: "text" };
import relayInput from "./parts/relay_input.wgsl" with { type: "text" };

/** Shaders of kernels/layer. */
export const layerShaders = createShaders({
  decode_layer: decodeLayer,
}, {
  ...productShaders.parts,
  ...attentionShaders.parts,
  merge_cells_1: mergeCells1,
  merge_cells_4: mergeCells4,
  relay,
  relay_input: relayInput,
});
