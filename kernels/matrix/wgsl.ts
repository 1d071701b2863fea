// The WGSL files of this room by name.
export { default as blend } from "./blend.wgsl" with { type: "text" };
export { default as to_f16 } from "./to_f16.wgsl" with { type: "text" };
