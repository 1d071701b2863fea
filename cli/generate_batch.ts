// `deno task generate --prompts`: texts from several prompts at once.
import { MAX_SEQUENCES } from "../model/engine/decode_step.ts";
import type { Engine, EngineGenerateOptions } from "../model/engine/engine.ts";
import type { GenerateSummary } from "../model/engine/generate.ts";
import { type Interrupt, UsageError } from "./command.ts";
import { formatMiB, formatSeconds } from "./progress.ts";
import { writeText } from "./write_text.ts";

interface BatchResult extends GenerateSummary {
  readonly prompt: string;
  readonly text: string;
}

/**
 * Reads prompts: one a line, empty lines left out; in a file of JSON lines (.jsonl) the string `prompt` of each object.
 *
 * @throws {UsageError} when there are none or too many, or a line is no such object
 */
export async function readPrompts(path: string): Promise<string[]> {
  // The decoder leaves a byte order mark out.
  const text = new TextDecoder().decode(await Deno.readFile(path));
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  if (lines.length < 1 || lines.length > MAX_SEQUENCES) {
    throw new UsageError(`--prompts ${path} has ${lines.length} prompts, must have 1 to ${MAX_SEQUENCES}`);
  }
  return path.endsWith(".jsonl") ? lines.map((line, i) => promptOf(line, `--prompts ${path}: object ${i + 1}`)) : lines;
}

function promptOf(line: string, what: string): string {
  let prompt: unknown;
  try {
    ({ prompt } = Object(JSON.parse(line)));
  } catch (error) {
    throw new UsageError(`${what} is no JSON: ${(error as Error).message}`);
  }
  if (typeof prompt === "string" && prompt !== "") return prompt;
  throw new UsageError(`${what} has the prompt ${JSON.stringify(prompt)}, must be a string that is not empty`);
}

/** Generates the texts, and prints them when all are there: as they are, or as JSON. */
export async function generateFromPrompts(
  engine: Engine,
  prompts: readonly string[],
  options: EngineGenerateOptions & { readonly isChat: boolean; readonly isJson: boolean; readonly model: string },
  interrupt: Interrupt,
): Promise<void> {
  const { isChat, isJson, model, ...rest } = options;
  const texts = prompts.map(() => "");
  const startMs = performance.now();
  const pieces = engine.generateBatch(
    isChat ? prompts.map((content) => [{ role: "user", content }]) : prompts,
    { ...rest, signal: interrupt.signal },
  );
  let next = await pieces.next();
  for (; !next.done; next = await pieces.next()) {
    interrupt.begin();
    texts[next.value.index] += next.value.text;
  }
  const results = next.value.map((summary, i) => ({ prompt: prompts[i], text: texts[i], ...summary }));
  const firstMs = next.value[0].firstTokenMs;
  const seconds = (performance.now() - startMs - firstMs) / 1000;
  const later = next.value.reduce((sum, { tokens }) => sum + Math.max(0, tokens - 1), 0);
  const tokensPerSecond = later / Math.max(1e-9, seconds);
  const device = engine.gpu.adapterName;
  const memoryBytes = engine.gpu.peakBytes;
  if (isJson) {
    console.log(JSON.stringify({ model, device, sequences: results, tokensPerSecond, memoryBytes }, null, 1));
    return;
  }
  await writeText(Deno.stdout, results.map(textBlock).join("\n"));
  console.error(
    `${results.length} texts, ${tokensPerSecond.toFixed(1)} tokens/s together, the first after ` +
      `${formatSeconds(firstMs)}; ${device}, ${formatMiB(memoryBytes)}`,
  );
}

function textBlock({ prompt, text, tokens, tokensPerSecond, reason }: BatchResult, index: number): string {
  const how = `${tokens} tokens at ${tokensPerSecond.toFixed(1)} tokens/s, ended by ${reason}`;
  return `== ${index + 1}: ${prompt} (${how})\n${text}\n`;
}
