/**
 * Claim `accuracy`: plain 2-bit quantization loses much accuracy, the paper's mixed bits little.
 *
 * @module
 */
import { type BaselineSettings, quantizeBaseline } from "../quant/baseline.ts";
import { plainLayout, type StripLayout } from "../quant/strip_layout.ts";
import { dequantizeStrips, stripBytes } from "../quant/strip_tensor.ts";
import { type Evaluation, evaluateModel } from "../model/evaluation.ts";
import { LINEAR_KINDS, linearName, type Model, replaceLinears } from "../model/llama.ts";
import { pairedDifference } from "../model/statistics.ts";
import type { Baseline, Experiment } from "./experiment.ts";
import type { Column, Row } from "./result.ts";

const METHODS: readonly (readonly [method: string, layout: StripLayout])[] = [
  ["rtn2_g128", plainLayout(2, 128)],
  ["rtn2_g32", plainLayout(2, 32)],
  ["rtn2_g16", plainLayout(2, 16)],
  ["rtn4_g16", plainLayout(4, 16)],
];
