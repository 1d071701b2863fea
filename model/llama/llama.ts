/**
 * The weights of a Llama-family model in memory, and the names of its tensors in a checkpoint.
 *
 * @module
 */
import type { ModelConfig } from "./config.ts";

/** The linear layers of one transformer layer, in the order in which activations reach them. */
export const LINEAR_KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

/** Kind of a linear layer. */
export type LinearKind = typeof LINEAR_KINDS[number];

/** A linear layer y = W x (+ bias). */
export interface Linear {
  /** f32 [rows, channels], row-major. */
  readonly weights: Float32Array;
  /** Output rows. */
  readonly rows: number;
  /** Input channels. */
  readonly channels: number;
  /** f32 [rows]. */
  readonly bias?: Float32Array;
}

/** One transformer layer. */
export interface Layer {
  /** Linear layers by kind. */
  readonly linears: Readonly<Record<LinearKind, Linear>>;
  /** f32 [hidden]: RMSNorm before attention. */
  readonly attentionNorm: Float32Array;
  /** f32 [headSize]: RMSNorm of each head of q before its rotation; where the model has `queryKeyNorm`. */
  readonly queryNorm?: Float32Array;
  /** f32 [headSize]: the same for k. */
  readonly keyNorm?: Float32Array;
  /** f32 [hidden]: RMSNorm before the MLP. */
  readonly mlpNorm: Float32Array;
}

/** A model whose weights are in memory as f32. */
export interface Model {
  /** Sizes and constants. */
  readonly config: ModelConfig;
  /** f32 [vocabulary, hidden]. */
  readonly embedding: Float32Array;
  /** Transformer layers. */
  readonly layers: readonly Layer[];
  /** f32 [hidden]. */
  readonly finalNorm: Float32Array;
  /** f32 [vocabulary, hidden]; the embedding itself where the head is tied. */
  readonly head: Float32Array;
}

/** Name of a linear layer's tensor in a checkpoint, without `.weight` or `.bias`. */
export function linearName(layer: number, kind: LinearKind): string {
  const module = kind === "gate_proj" || kind === "up_proj" || kind === "down_proj" ? "mlp" : "self_attn";
  return `model.layers.${layer}.${module}.${kind}`;
}

/** The sizes that linear layers follow from. */
export type LinearSizes = Pick<ModelConfig, "hidden" | "intermediate" | "heads" | "keyValueHeads" | "headSize">;

/** Rows and input channels of a linear layer. */
export function linearShape(config: LinearSizes, kind: LinearKind): readonly [rows: number, channels: number] {
  const { hidden, intermediate, heads, keyValueHeads, headSize } = config;
  switch (kind) {
    case "q_proj":
      return [heads * headSize, hidden];
    case "k_proj":
    case "v_proj":
      return [keyValueHeads * headSize, hidden];
    case "o_proj":
      return [hidden, heads * headSize];
    case "gate_proj":
    case "up_proj":
      return [intermediate, hidden];
    case "down_proj":
      return [hidden, intermediate];
  }
}
