// The weights of a Llama-family model in memory.
import type { ModelConfig } from "./config.ts";
import type { LinearKind } from "./layer.ts";

/** A linear layer y = W x (+ bias). */
export interface Linear {
  /** f32 [rows, channels], row-major. */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly channels: number;
  /** f32 [rows]. */
  readonly bias?: Float32Array;
}

export interface Layer {
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
  readonly config: ModelConfig;
  /** f32 [vocabulary, hidden]. */
  readonly embedding: Float32Array;
  readonly layers: readonly Layer[];
  /** f32 [hidden]. */
  readonly finalNorm: Float32Array;
  /** f32 [vocabulary, hidden]; the embedding itself where the head is tied. */
  readonly head: Float32Array;
}
