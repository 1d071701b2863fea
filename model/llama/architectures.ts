// The architectures that the forward pass implements: a row for each, with what sets it apart from the others.
//
// The forward pass, the kernels and packed files know one layout of a layer: a tensor for each linear layer, and heads
// whose first half rotates with the second (model/llama/layer.ts, rope.ts). What a row says of `fused` tensors and of
// rotation is undone when a checkpoint is read, and done again when one is written (model/files/tensor_layout.ts).
import type { LinearKind } from "./layer.ts";

export interface Architecture {
  /** Linear layers of attention that have a bias, always or, where `defaults.attentionBias` is there, by `attention_bias`. */
  readonly bias: "none" | "qkv" | "qkvo";
  /** Whether each head of q and k goes through an RMSNorm before its rotation. */
  readonly queryKeyNorm?: boolean;
  /** Whether every layer sees only the last `sliding_window` tokens; otherwise a window is refused. */
  readonly slidingWindow?: boolean;
  /** Whether element 2 i of a head rotates with element 2 i + 1; otherwise halves rotate with each other. */
  readonly rotatesNeighbours?: boolean;
  /** Linear layers whose rows lie one after the other in one tensor, by the tensor's name below the layer. */
  readonly fused?: Readonly<Record<string, readonly LinearKind[]>>;
  /**
   * The configuration class's own values, for files that leave them out. Without `partialRotary` a head rotates whole, and
   * another `partial_rotary_factor` is refused.
   */
  readonly defaults: {
    /** Whether there are biases. */
    readonly attentionBias?: boolean;
    readonly headSize?: number;
    readonly keyValueHeads?: number;
    /** Tokens of the context before its stretching, where `config.json` says it outside the scaling; there it counts. */
    readonly originalContext?: number;
    readonly partialRotary?: number;
    readonly slidingWindow?: number;
  };
}

/** Architectures, as `config.json` names them. */
export type ArchitectureName =
  | "LlamaForCausalLM"
  | "MistralForCausalLM"
  | "Qwen2ForCausalLM"
  | "Qwen3ForCausalLM"
  | "GlmForCausalLM"
  | "Phi3ForCausalLM";

const TABLE: Readonly<Record<ArchitectureName, Architecture>> = {
  LlamaForCausalLM: { bias: "qkvo", defaults: { attentionBias: false } },
  MistralForCausalLM: { bias: "none", slidingWindow: true, defaults: { slidingWindow: 4096 } },
  Qwen2ForCausalLM: { bias: "qkv", defaults: {} },
  Qwen3ForCausalLM: { bias: "qkvo", queryKeyNorm: true, defaults: { attentionBias: false, headSize: 128 } },
  GlmForCausalLM: {
    bias: "qkv",
    rotatesNeighbours: true,
    fused: { "mlp.gate_up_proj": ["gate_proj", "up_proj"] },
    defaults: { attentionBias: true, headSize: 128, keyValueHeads: 2, partialRotary: 0.5 },
  },
  Phi3ForCausalLM: {
    bias: "none",
    slidingWindow: true,
    fused: { "self_attn.qkv_proj": ["q_proj", "k_proj", "v_proj"], "mlp.gate_up_proj": ["gate_proj", "up_proj"] },
    defaults: { partialRotary: 1, originalContext: 4096 },
  },
};

export const ARCHITECTURES: readonly ArchitectureName[] = Object.keys(TABLE) as ArchitectureName[];

/** What sets an architecture apart. */
export function architectureOf(name: ArchitectureName): Architecture {
  return TABLE[name];
}
