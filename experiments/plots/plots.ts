// Which result has which plot.
import type { Result } from "../results/result.ts";
import { accuracyPlot, calibrationPlot, decodePrecisionPlot, fourBitSharePlot, outliersPlot } from "./quality.ts";
import { renderPlot, type Spec } from "./render_plot.ts";
import { asyncPlot, dequantSharePlot, endToEndPlot, throughputPlot } from "./speed.ts";
import { bitsPlot, costPlot, rangesPlot } from "./storage.ts";

export const PLOTS: Readonly<Record<string, (result: Result, peers?: Result) => Spec>> = {
  bits: bitsPlot,
  ranges: rangesPlot,
  accuracy: accuracyPlot,
  four_bit_share: fourBitSharePlot,
  outliers: outliersPlot,
  dequant_share: dequantSharePlot,
  async: asyncPlot,
  end_to_end: endToEndPlot,
  cost: costPlot,
  calibration: calibrationPlot,
  throughput: throughputPlot,
  decode_precision: decodePrecisionPlot,
};

/** Whether a result has a plot: software adapters' timings mean nothing, so they have none. */
export function hasPlot({ id, device, verdict }: Result): boolean {
  return Object.hasOwn(PLOTS, id) && !(device.software && verdict.status === "not measured");
}

export async function plotOf(result: Result, peers?: Result): Promise<string> {
  const { id, title, device } = result;
  return await renderPlot(`${id}-${device.name}`, `${title}, on ${device.name}`, PLOTS[id](result, peers));
}
