/// <reference lib="dom" />
// A generation: its settings, the text as it comes, and how it went.
import type { Sampling } from "../kernels/tokens/sampler.ts";
import type { Engine } from "../model/engine/engine.ts";
import type { GenerateSummary } from "../model/engine/generate.ts";
import { element, setText } from "./elements.ts";

export async function generateText(engine: Engine, settings: FormData, signal: AbortSignal): Promise<void> {
  const prompt = String(settings.get("prompt"));
  const isChat = engine.prompts.hasTemplate && settings.has("chat");
  const sampling = samplingOf(settings);
  const output = element("text", HTMLOutputElement);
  output.textContent = "";
  for (const id of ["speed", "first", "tokens", "reason"]) setText(id, "-");
  const pieces = engine.generate(isChat ? [{ role: "user", content: prompt }] : prompt, {
    maxTokens: Number(settings.get("maxTokens")),
    signal,
    ...(sampling && { sampling }),
  });
  while (true) {
    const { value, done } = await pieces.next();
    if (done) return showSummary(value);
    output.append(value);
  }
}

/** How tokens are drawn; undefined for the most likely one. */
function samplingOf(settings: FormData): Sampling | undefined {
  const number = (name: string) => Number(settings.get(name));
  const temperature = number("temperature");
  if (temperature === 0) return undefined;
  return { temperature, topK: number("topK"), topP: number("topP"), seed: number("seed") };
}

function showSummary({ promptTokens, tokens, reason, firstTokenMs, tokensPerSecond }: GenerateSummary): void {
  setText("speed", `${tokensPerSecond.toFixed(1)} tokens/s`);
  setText("first", `${firstTokenMs.toFixed(0)} ms`);
  setText("tokens", `${tokens} after ${promptTokens} of prompt`);
  setText("reason", reason);
}
