// What quantizes the layers of a model: the workers of the CPU (cpu_device.ts) or a GPU (gpu_device.ts). Which layer
// and stage comes when is said once, in quantize_layers.ts; a device does its part of each.
import type { FeedbackSettings } from "../../quant/error_feedback.ts";
import type { Quantizer, StoredTensor } from "../../quant/quantize.ts";
import type { Hessian } from "../../quant/report.ts";
import type { Checkpoint } from "../files/checkpoint.ts";
import type { WeightSource } from "../engine/weight_source.ts";
import type { ModelConfig } from "../llama/config.ts";
import type { LinearKind } from "../llama/layer.ts";
import type { Layer } from "../llama/llama.ts";
import type { TunedModel, TuningWatch } from "../tune/tune_model.ts";
import type { TuningNeeds } from "../tune/tuning_limits.ts";
import type { TuningSettings } from "../tune/tuning_plan.ts";

/** Where the layers of a model come from. */
export interface LayerSource {
  readonly config: ModelConfig;
  /** Reads a layer. Its memory may be used again once another layer is asked for. */
  readLayer(index: number): Promise<Layer>;
  /** Frees the matrices of a stage of the layer that was read last; those of the next layer may be read in their place. */
  freeStage?(stage: number): void;
}

/** Stored matrices of a layer; a kind that is left out stays as it is. */
export type StoredLayer = ReadonlyMap<LinearKind, StoredTensor>;

/** The text that quantizers with error feedback measure inputs on. */
export interface Calibration {
  /** f32 [vocabulary, hidden]; a run that has started needs it no more. */
  readonly embedding: Float32Array;
  /** Tokens of each window, at least one. */
  readonly windows: readonly Uint32Array[];
  /** Whether targets are corrected, which takes the text through the unquantized model too. */
  readonly correctTarget: boolean;
  /** How the model will be tuned on it, where it will, which takes corrected targets. */
  readonly tuning?: TuningNeeds;
  /**
   * Whether the text goes through the unquantized model alone, so that every quantizer meets the same inputs; targets
   * aren't corrected then.
   */
  readonly keepsInputs?: boolean;
}

export interface QuantizingDevice {
  /** Opens the layers of a checkpoint, in the memory that the device works from. */
  openLayers(checkpoint: Checkpoint): Promise<LayerSource & Disposable>;
  /**
   * Puts the calibration text before the first layer.
   *
   * @throws {RangeError} when it has no windows
   * @throws {Error} when the model will be tuned, and the device can't
   */
  start(config: ModelConfig, calibration?: Calibration): Promise<QuantizingRun>;
  /**
   * Measures what the model loses where each stage of each layer alone is quantized; a device that would take too long for
   * it has none.
   *
   * @throws {OutOfMemoryError} when there is no room for the whole model in 16 bits
   */
  readonly measureLosses?: (checkpoint: Checkpoint, plan: StageLossPlan) => Promise<StageLosses>;
}

export interface StageLossPlan {
  readonly windows: readonly Uint32Array[];
  /** Whether a matrix will be quantized. */
  readonly isQuantized: (layer: number, kind: LinearKind) => boolean;
  readonly onProgress?: (share: number, step: string) => void;
  /** Ends the measuring before the next layer, with the signal's reason. */
  readonly signal?: AbortSignal;
}

/**
 * For each layer and stage KL from the unquantized model's predictions, in nats a token; none where the stage has nothing to
 * quantize.
 */
export type StageLosses = readonly (readonly (number | undefined)[])[];

/** A model that is being quantized; dispose it to free what the device holds of it. */
export interface QuantizingRun extends Disposable {
  /** Whether calibration text is on its way. */
  readonly isCalibrated: boolean;
  /** Begins a layer, whose weights stay until it is disposed; layers come in order. */
  startLayer(index: number, original: Layer): Promise<LayerRun>;
  /**
   * Tunes the model once the text has come through all layers, which ends the run.
   *
   * @param source the quantized model
   */
  tune(source: WeightSource, settings: TuningSettings, watch: TuningWatch): Promise<TunedModel>;
}

/** A layer that is being quantized. */
export interface LayerRun extends Disposable {
  /**
   * Takes the text through the matrices of the stage before to the inputs of `stage`, or, with the number of stages, to
   * the next layer: once for each stage, in order. In the quantized model it meets what was quantized or restored.
   */
  advance(stage: number): Promise<void>;
  /**
   * Quantizes matrices of the stage that the text has come to, and may take it through them already; `onShare` is told how
   * much of their inputs is summed.
   */
  quantize(job: StageJob, onShare: (share: number) => void): Promise<StoredLayer>;
  /** Takes matrices of the stage that the text has come to as an earlier run left them. */
  restore(stored: StoredLayer): Promise<void>;
}

export interface StageJob {
  readonly stage: number;
  readonly quantizers: ReadonlyMap<LinearKind, Quantizer>;
  /** Error feedback of those that have any: their input is the same, and so is what is prepared from it. */
  readonly feedback?: FeedbackSettings;
  /** Told the Hessian of that input, where any of them needs to know it. */
  readonly onHessian?: (hessian: Hessian) => void;
  /** Whether any of them weighs channels by their inputs. */
  readonly weighsChannels: boolean;
}
