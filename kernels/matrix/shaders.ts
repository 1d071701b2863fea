/**
 * The shaders of this room.
 *
 * @module
 */
import { createShaders } from "../gpu/shader.ts";
import blend from "./blend.wgsl" with { type: "text" };
import halveWeights from "./halve_weights.wgsl" with { type: "text" };

/** Shaders of kernels/matrix. */
export const matrixShaders = createShaders({ blend, halve_weights: halveWeights }, {});
