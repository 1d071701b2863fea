// needs: steps
// is: layer_steps
// What decode_layer.wgsl binds for packed weights beside their codes and outliers.
@group(0) @binding(1) var<storage, read> refine: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> meta_words: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> tile_scale: array<vec4<u32>>;
