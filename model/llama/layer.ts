// What a transformer layer of the Llama family is, said once: its stages in order, its linear layers, its vectors, and
// what a checkpoint calls them. The forward pass, calibration, the engine, readers and writers all follow these tables.
//
//     hidden -> attention norm -> q, k, v -> attention -> o, added to hidden
//     hidden -> mlp norm -> gate, up -> silu(gate) * up -> down, added to hidden
import type { ModelConfig } from "./config.ts";

/** The linear layers of one transformer layer, in the order in which activations reach them. */
export const LINEAR_KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;

export type LinearKind = typeof LINEAR_KINDS[number];

/** Where the input of a stage comes from: a norm of the residual stream, or what was made of the stage before. */
export type StageInput = "attentionNorm" | "attention" | "mlpNorm" | "siluProduct";

/** Linear layers that have the same input. */
export interface Stage {
  /** Name of the stage, as tables and timings call it. */
  readonly name: "qkv" | "o" | "gate+up" | "down";
  readonly linears: readonly LinearKind[];
  readonly input: StageInput;
  /** Whether their output is added to the residual stream; otherwise the next stage's input is made of it. */
  readonly joinsResidual: boolean;
}

export const STAGES: readonly Stage[] = [
  { name: "qkv", linears: ["q_proj", "k_proj", "v_proj"], input: "attentionNorm", joinsResidual: false },
  { name: "o", linears: ["o_proj"], input: "attention", joinsResidual: true },
  { name: "gate+up", linears: ["gate_proj", "up_proj"], input: "mlpNorm", joinsResidual: false },
  { name: "down", linears: ["down_proj"], input: "siluProduct", joinsResidual: true },
];

/** The sizes that linear layers follow from. */
export type LinearSizes = Pick<ModelConfig, "hidden" | "intermediate" | "heads" | "keyValueHeads" | "headSize">;

interface LinearSpec {
  /** The module that holds it. */
  readonly module: "self_attn" | "mlp";
  readonly rows: (sizes: LinearSizes) => number;
  readonly channels: (sizes: LinearSizes) => number;
  readonly hasBias: (config: ModelConfig) => boolean;
  /** Whether its outputs are heads that rotate. */
  readonly rotates?: boolean;
}

const queries = ({ heads, headSize }: LinearSizes) => heads * headSize;
const keys = ({ keyValueHeads, headSize }: LinearSizes) => keyValueHeads * headSize;
const hidden = (sizes: LinearSizes) => sizes.hidden;
const intermediate = (sizes: LinearSizes) => sizes.intermediate;
const attentionBias = (config: ModelConfig) => config.attentionBias;
const none = () => false;

const LINEARS: Readonly<Record<LinearKind, LinearSpec>> = {
  q_proj: { module: "self_attn", rows: queries, channels: hidden, hasBias: attentionBias, rotates: true },
  k_proj: { module: "self_attn", rows: keys, channels: hidden, hasBias: attentionBias, rotates: true },
  v_proj: { module: "self_attn", rows: keys, channels: hidden, hasBias: attentionBias },
  o_proj: { module: "self_attn", rows: hidden, channels: queries, hasBias: (config) => config.outputBias },
  gate_proj: { module: "mlp", rows: intermediate, channels: hidden, hasBias: none },
  up_proj: { module: "mlp", rows: intermediate, channels: hidden, hasBias: none },
  down_proj: { module: "mlp", rows: hidden, channels: intermediate, hasBias: none },
};

/** Name of a linear layer's tensor in a checkpoint, without `.weight` or `.bias`. */
export function linearName(layer: number, kind: LinearKind): string {
  return `model.layers.${layer}.${LINEARS[kind].module}.${kind}`;
}

/** Rows and input channels of a linear layer. */
export function linearShape(sizes: LinearSizes, kind: LinearKind): readonly [rows: number, channels: number] {
  return [LINEARS[kind].rows(sizes), LINEARS[kind].channels(sizes)];
}

/** Output rows of a stage's matrices together, and their input channels. */
export function stageShape(sizes: LinearSizes, { linears }: Stage): readonly [rows: number, channels: number] {
  const shapes = linears.map((kind) => linearShape(sizes, kind));
  return [shapes.reduce((sum, [rows]) => sum + rows, 0), shapes[0][1]];
}

/** The most elements that a token has in one buffer. */
export function widestOf(sizes: LinearSizes): number {
  return Math.max(sizes.hidden, ...STAGES.map((stage) => Math.max(...stageShape(sizes, stage))));
}

/** Weights of the linear layers of a model. */
export function linearWeights(config: ModelConfig): number {
  const shapes = LINEAR_KINDS.map((kind) => linearShape(config, kind));
  return config.layers * shapes.reduce((sum, [rows, channels]) => sum + rows * channels, 0);
}

export function hasBias(config: ModelConfig, kind: LinearKind): boolean {
  return LINEARS[kind].hasBias(config);
}

/** A norm of a layer, as `Layer` calls it. */
export type NormKind = "attentionNorm" | "queryNorm" | "keyNorm" | "mlpNorm";

interface NormSpec {
  /** Its name below the layer, without `.weight`. */
  readonly module: string;
  readonly width: (config: ModelConfig) => number;
  readonly isPresent: (config: ModelConfig) => boolean;
  /** Whether it multiplies heads that rotate. */
  readonly rotates?: boolean;
}

const always = () => true;
const headSize = (config: ModelConfig) => config.headSize;
const queryKeyNorm = (config: ModelConfig) => config.queryKeyNorm;

const NORMS: Readonly<Record<NormKind, NormSpec>> = {
  attentionNorm: { module: "input_layernorm", width: hidden, isPresent: always },
  queryNorm: { module: "self_attn.q_norm", width: headSize, isPresent: queryKeyNorm, rotates: true },
  keyNorm: { module: "self_attn.k_norm", width: headSize, isPresent: queryKeyNorm, rotates: true },
  mlpNorm: { module: "post_attention_layernorm", width: hidden, isPresent: always },
};

/** The norms of one transformer layer. */
export const NORM_KINDS: readonly NormKind[] = Object.keys(NORMS) as NormKind[];

/** Name of a norm's tensor in a checkpoint. */
export function normName(layer: number, kind: NormKind): string {
  return `model.layers.${layer}.${NORMS[kind].module}.weight`;
}

/** Elements of a norm; undefined where the model has none of this kind. */
export function normWidth(config: ModelConfig, kind: NormKind): number | undefined {
  const { width, isPresent } = NORMS[kind];
  return isPresent(config) ? width(config) : undefined;
}

export interface LayerTensor {
  /** What a checkpoint calls it. */
  readonly name: string;
  /** [rows, channels] of a linear layer's weights, [length] of a vector. */
  readonly shape: readonly number[];
  /** Whether its rows are elements of heads that rotate. */
  readonly rotates: boolean;
}

/** All tensors that a layer of this model has. */
export function layerTensors(config: ModelConfig, layer: number): LayerTensor[] {
  const tensors: LayerTensor[] = [];
  for (const kind of LINEAR_KINDS) {
    const { rotates = false } = LINEARS[kind];
    const [rows, channels] = linearShape(config, kind);
    tensors.push({ name: `${linearName(layer, kind)}.weight`, shape: [rows, channels], rotates });
    if (hasBias(config, kind)) tensors.push({ name: `${linearName(layer, kind)}.bias`, shape: [rows], rotates });
  }
  for (const kind of NORM_KINDS) {
    const width = normWidth(config, kind);
    const { rotates = false } = NORMS[kind];
    if (width !== undefined) tensors.push({ name: normName(layer, kind), shape: [width], rotates });
  }
  return tensors;
}

export function allLayerTensors(config: ModelConfig): ReadonlyMap<string, LayerTensor> {
  const layers = Array.from({ length: config.layers }, (_, layer) => layerTensors(config, layer));
  return new Map(layers.flat().map((tensor) => [tensor.name, tensor]));
}
