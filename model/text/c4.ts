// A piece of C4, cleaned pages of the web in English, on which GPTQ and its successors calibrate.
import { fetchDatasetFile } from "../hub/hub_dataset.ts";
import { type HubSettings, readHubSettings } from "../hub/hub_settings.ts";
import { quoteText } from "../host/quote_text.ts";

/** The smallest file with pages of all kinds: the first of eight with its validation split, 40 MB. */
const FILE = { dataset: "allenai/c4", folder: "en", file: "c4-validation.00000-of-00008.json.gz" };

/** Characters that are read: some two million tokens, many times what is calibrated on. */
const CHARACTERS = 2 ** 23;

/**
 * Reads the first pages, joined by empty lines.
 *
 * @param path JSON lines with a `text` each, compressed by gzip; by default loaded from the hub
 * @throws {SyntaxError} for a file that is something else
 */
export async function readC4(path?: string): Promise<string> {
  const file = path ?? await fetchC4(await readHubSettings());
  const pages: string[] = [];
  let characters = 0;
  let rest = "";
  const opened = await Deno.open(file);
  const parts = opened.readable.pipeThrough(new DecompressionStream("gzip")).pipeThrough(new TextDecoderStream());
  try {
    for await (const part of parts) {
      const lines = (rest + part).split("\n");
      rest = lines.pop()!;
      for (const line of lines) pages.push(textOf(file, line));
      characters += part.length;
      if (characters >= CHARACTERS) break;
    }
  } catch (cause) {
    if (cause instanceof SyntaxError) throw cause;
    throw new SyntaxError(`${file} is not compressed by gzip: ${(cause as Error).message}`, { cause });
  }
  return pages.join("\n\n");
}

/** Gets the file into the hub's cache. */
export function fetchC4(settings: HubSettings): Promise<string> {
  return fetchDatasetFile(FILE, settings);
}

function textOf(file: string, line: string): string {
  let text: unknown;
  try {
    ({ text } = Object(JSON.parse(line)));
  } catch { /* no JSON, no text */ }
  if (typeof text === "string") return text;
  throw new SyntaxError(`${file} has the line ${quoteText(line)}, must have objects with a text`);
}
