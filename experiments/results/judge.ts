// Judging a claim by what was measured, given the error of the measurement.
import type { Estimate } from "../../model/host/statistics.ts";
import type { Verdict } from "./result.ts";

/** How far a claim held where it was measured. */
type Status = Exclude<Verdict["status"], "not measured">;

/** How {@linkcode statusOf} decides, for a verdict's note. */
export const STATUS_RULE = "Partly means: within one standard error of the claimed limit.";

/** Status of a claim that holds by `margin` (negative: fails by it), given the margin's standard error. */
export function statusOf(margin: number, standardError: number): Status {
  return Math.abs(margin) <= standardError ? "partly" : margin > 0 ? "reproduced" : "not reproduced";
}

/** Status of a value that is claimed to be `claimed` or more. */
export function statusOfAtLeast({ value, standardError }: Estimate, claimed: number): Status {
  return statusOf(value - claimed, standardError);
}

/** Status of a claim that has several parts: one of them alone is a part of it. */
export function statusOfParts(parts: readonly Status[]): Status {
  return parts.every((part) => part === parts[0]) ? parts[0] : "partly";
}

/** Status of a part that asks for several things at once: no better than the one that holds least. */
export function statusOfAll(conditions: readonly Status[]): Status {
  return (["not reproduced", "partly"] as const).find((status) => conditions.includes(status)) ?? "reproduced";
}

/** A sentence about a value that is as near to the claimed one as its error, else nothing. */
export function describeNear(what: string, estimate: Estimate, claimed: number): string {
  if (statusOfAtLeast(estimate, claimed) !== "partly") return "";
  return ` ${what} differs from ${claimed} by no more than its standard error, so that it decides nothing.`;
}

/** A value with its standard error as people read it, to so many digits or to the error's first one. */
export function formatEstimate({ value, standardError }: Estimate, least = 2): string {
  const digits = standardError > 1e-6 ? Math.max(least, -Math.floor(Math.log10(standardError))) : least;
  return `${value.toFixed(digits)} ± ${standardError.toFixed(digits)}`;
}

/** What a difference says that isn't above its error, else nothing. */
export function describeNoise({ value, standardError }: Estimate, unit: string, digits?: number): string | null {
  if (Math.abs(value) > standardError) return null;
  return `${formatEstimate({ value, standardError }, digits)} ${unit}: within noise`;
}
