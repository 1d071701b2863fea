/**
 * Perplexity on the GPU engine.
 *
 * @module
 */
import type { Engine } from "./engine.ts";
import { summarizeWindows, type WindowScore, type WindowsEvaluation } from "./score.ts";
import type { Windows } from "./windows.ts";

/** Evaluates an engine's model on windows; each predicts its tokens but the first. */
export async function evaluateEngine(
  engine: Engine,
  { windows }: Windows,
  onProgress: (share: number) => void = () => {},
): Promise<WindowsEvaluation> {
  using session = await engine.createSession(Math.max(...windows.map(({ length }) => length)));
  const scores: WindowScore[] = [];
  for (const tokens of windows) {
    session.truncate(0);
    const targets = tokens.slice(1);
    const { logLikelihoods, best } = await session.score(tokens.slice(0, -1), targets);
    scores.push({
      negativeLogLikelihood: logLikelihoods.map((value) => -value),
      top1: Uint8Array.from(best, (token, i) => token === targets[i] ? 1 : 0),
    });
    onProgress(scores.length / windows.length);
  }
  return summarizeWindows(scores);
}
