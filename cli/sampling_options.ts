// Options of commands that draw tokens.
import type { Sampling } from "../kernels/tokens/sampler.ts";
import { integerOption, numberOption, type Option, type OptionValues, UsageError } from "./command.ts";

export const SAMPLING_OPTIONS: Readonly<Record<string, Option>> = {
  temperature: { value: "F", help: "Temperature; 0 (default) takes the most likely token." },
  "top-k": { value: "N", help: "Draw from the N most likely tokens; 0 (default) for all." },
  "top-p": { value: "F", help: "Draw from the fewest tokens that reach this probability (default 1)." },
  seed: { value: "N", help: "Seed of the draws (default 1); of --prompts, each has one more." },
};

/** How tokens are drawn; undefined for the most likely one. @throws {UsageError} */
export function samplingOption(options: OptionValues): Sampling | undefined {
  const temperature = numberOption(options, "temperature", 0, 0, 100);
  const sampling = {
    temperature,
    topK: integerOption(options, "top-k", 0, 0, 2 ** 24),
    topP: numberOption(options, "top-p", 1, 0, 1),
    seed: integerOption(options, "seed", 1, 0, 2 ** 32 - 1),
  };
  if (temperature > 0) return sampling;
  for (const name of ["top-k", "top-p", "seed"]) {
    if (options[name] !== undefined) throw new UsageError(`--${name} needs --temperature above 0, which is 0`);
  }
  return undefined;
}
