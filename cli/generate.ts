// `deno task generate`: text from a prompt, or texts from several.
import type { Gpu } from "../kernels/gpu/gpu.ts";
import { MAX_SEQUENCES } from "../model/engine/decode_step.ts";
import type { GenerateSummary } from "../model/engine/generate.ts";
import { openModel } from "../model/load.ts";
import { loadEngine } from "../model/load_engine.ts";
import { weightBytes } from "../model/engine/weight_source.ts";
import {
  type Command,
  integerOption,
  type Interrupt,
  modelOption,
  type OptionValues,
  textOption,
  UsageError,
  WEBGPU_OPTION,
} from "./command.ts";
import { generateFromPrompts, readPrompts } from "./generate_batch.ts";
import { checkQuantized } from "./packed_option.ts";
import { PRECISION_OPTIONS, precisionOption } from "./precision_options.ts";
import { createProgressLine, formatMiB, formatSeconds } from "./progress.ts";
import { SAMPLING_OPTIONS, samplingOption } from "./sampling_options.ts";
import { writeText } from "./write_text.ts";

export const generate: Command = {
  name: "generate",
  summary: "Generates text on the GPU and prints it as it comes; speed and memory follow on standard error.",
  options: {
    model: modelOption("Model"),
    quantized: {
      value: "F.safetensors",
      help: "Packed file to take in the place of --model, whose configuration it must have where both are given.",
    },
    prompt: { value: "TEXT", help: "Text to go on from." },
    prompts: {
      value: "FILE",
      help:
        `Up to ${MAX_SEQUENCES} texts to go on from at once, one a line, or JSON lines (.jsonl) with a prompt each.`,
    },
    raw: { help: "Take a prompt as it is, even where the model has a chat template." },
    ...SAMPLING_OPTIONS,
    ...PRECISION_OPTIONS,
    "max-tokens": { value: "N", help: "Most tokens to generate for a prompt (default 256)." },
    ...WEBGPU_OPTION,
    json: { help: "Print text and measurements as JSON at the end." },
  },
  async run(options, _positionals, interrupt) {
    const prompts = await promptsOption(options);
    const model = textOption(options, "quantized", textOption(options, "model", "tiny"));
    const maxTokens = integerOption(options, "max-tokens", 256, 1, 2 ** 20);
    const sampling = samplingOption(options);
    const precision = precisionOption(options);
    if (typeof options.quantized === "string") await checkQuantized(options.quantized, givenModel(options));
    using line = createProgressLine("loading");
    const bytes = await downloadedBytes(model, (share, file) => line.update(share, file));
    using engine = await loadEngine(model, {
      ...precision,
      onProgress: (share) => line.update(share, `of ${formatMiB(bytes)} of weights`),
    });
    line.clear();
    const isChat = engine.prompts.hasTemplate && options.raw !== true;
    const isJson = options.json === true;
    if (options.prompts !== undefined) {
      const given = { maxTokens, isChat, isJson, model, ...(sampling && { sampling }) };
      await generateFromPrompts(engine, prompts, given, interrupt);
      noteWaiting(engine.gpu);
      return 0;
    }
    const [prompt] = prompts;
    const unread = new AbortController();
    const pieces = engine.generate(isChat ? [{ role: "user", content: prompt }] : prompt, {
      maxTokens,
      signal: AbortSignal.any([interrupt.signal, unread.signal]),
      ...(sampling && { sampling }),
    });
    const { text, summary } = await print(pieces, isJson, interrupt, unread);
    const memoryBytes = engine.gpu.peakBytes;
    if (isJson) {
      console.log(
        JSON.stringify({ model, device: engine.gpu.adapterName, prompt, text, ...summary, memoryBytes }, null, 1),
      );
    } else {
      console.error(
        `\n${summary.tokens} tokens at ${summary.tokensPerSecond.toFixed(1)} tokens/s, the first after ` +
          `${formatSeconds(summary.firstTokenMs)} (${summary.promptTokens} of prompt); ${engine.gpu.adapterName}, ` +
          `${formatMiB(memoryBytes)}; ended by ${summary.reason}`,
      );
    }
    noteWaiting(engine.gpu);
    return 0;
  },
};

/** The texts to go on from, of either option. @throws {UsageError} */
async function promptsOption(options: OptionValues): Promise<string[]> {
  const prompt = textOption(options, "prompt", "");
  if (options.prompts === undefined) {
    if (prompt === "") throw new UsageError("--prompt is missing, must be the text to go on from");
    return [prompt];
  }
  if (options.prompt !== undefined) throw new UsageError("--prompt and --prompts are given, must be one of them");
  return await readPrompts(textOption(options, "prompts", ""));
}

function givenModel({ model }: OptionValues): string | undefined {
  return typeof model === "string" ? model : undefined;
}

/** Gets a model of the hub into the cache; returns the bytes of device memory that the weights take. */
async function downloadedBytes(model: string, onDownload: (share: number, file: string) => void): Promise<number> {
  using checkpoint = await openModel(model, onDownload);
  return weightBytes(checkpoint);
}

/**
 * Prints text as it comes, until nobody reads it any more. Before the first text an interrupt loses nothing, so it ends
 * the process; after it an interrupt ends the text.
 */
async function print(
  pieces: AsyncGenerator<string, GenerateSummary>,
  quiet: boolean,
  interrupt: Interrupt,
  unread: AbortController,
): Promise<{ text: string; summary: GenerateSummary }> {
  let text = "";
  while (true) {
    const { value, done } = await pieces.next();
    if (done) return { text, summary: value };
    interrupt.begin();
    text += value;
    if (!quiet && !unread.signal.aborted && !await writeText(Deno.stdout, value)) unread.abort();
  }
}

/** Says where layers stopped to run whole. */
function noteWaiting({ hasWaitedInVain }: Gpu): void {
  if (!hasWaitedInVain) return;
  console.error(
    "Workgroups of a layer waited for each other in vain: from there on layers ran operation by operation.",
  );
}
