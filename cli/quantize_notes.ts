// What `deno task quantize` says of how far a result can be trusted.
import type { MatrixReport, QuantizeOptions, UsedCalibration } from "../model/quantize_options.ts";
import { median } from "../model/host/statistics.ts";
import { ENOUGH_TOKENS } from "../quant/recipe.ts";
import { formatPercent } from "./progress.ts";

/** What a person should know of the text that was calibrated on. */
export function noteCalibration(
  { calibration, tokens, reason, whyFewer }: UsedCalibration,
  { method }: Pick<QuantizeOptions, "method">,
): string[] {
  const notes = [
    ...(whyFewer === undefined ? [] : [`calibrating on ${tokens} tokens, fewer than by default: ${whyFewer}`]),
    ...(reason === undefined ? [] : [`calibrating on ${calibration} alone, without self: ${reason}`]),
  ];
  if (method !== "corrected" || tokens >= ENOUGH_TOKENS) return notes;
  return [
    ...notes,
    `correcting by ${tokens} calibration tokens: more make it surer, up to about ${ENOUGH_TOKENS} (--windows)`,
  ];
}

/**
 * Times the median of its kind over all layers from which on a weighted error is out of line. The largest seen are 3.9
 * (SmolLM2-135M, `search`, q of layer 24) and 2.1 (embedded model, `corrected`, down of layer 3).
 */
const OUT_OF_LINE = 8;

export function noteOutOfLine(reports: readonly Pick<MatrixReport, "name" | "weightedError">[]): string[] {
  const kinds = Map.groupBy(reports, ({ name }) => name.slice(name.lastIndexOf(".") + 1));
  return [...kinds.values()].flatMap((ofKind) => {
    const middle = median(ofKind.flatMap(({ weightedError }) => weightedError ?? []));
    return ofKind.flatMap(({ name, weightedError = 0 }) =>
      weightedError > OUT_OF_LINE * middle
        ? [
          `${name}: weighted error ${formatPercent(weightedError)} is out of line, the median of its kind is ` +
          `${formatPercent(middle)}; --layers can leave it in 16 bits`,
        ]
        : []
    );
  });
}
