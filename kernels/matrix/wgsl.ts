// The WGSL files of this room by name.
export { default as blend } from "./blend.wgsl" with { type: "text" };
export { default as halve_weights } from "./halve_weights.wgsl" with { type: "text" };
