// WikiText-2: its test split, on which GPTQ and its successors report perplexity, joined as they do; its train split.
import { parquetReadObjects } from "hyparquet";
import { fetchDatasetFile } from "../hub/hub_dataset.ts";
import { type HubSettings, readHubSettings } from "../hub/hub_settings.ts";
import { strip } from "../host/python_text.ts";
import { clipText, quoteText } from "../host/quote_text.ts";

/** A part of the text: what is evaluated on, and what may be calibrated on. */
export type WikitextSplit = "test" | "train";

/** Largest file that is read; the test split has 1.3 MB, the train split 11. */
const MAX_FILE_BYTES = 2 ** 26;

/**
 * Reads the text: rows joined by an empty line.
 *
 * @param path the text as first published (wiki.test.raw) or the hub's Parquet file; by default loaded from the hub
 * @param split what the hub is asked for
 * @throws {SyntaxError} for a file that is too large or no Parquet
 */
export async function readWikitext(path?: string, split: WikitextSplit = "test"): Promise<string> {
  const file = path ?? await fetchWikitext(await readHubSettings(), split);
  const { size } = await Deno.stat(file);
  if (size > MAX_FILE_BYTES) throw new SyntaxError(`${file} has ${size} bytes, must have at most ${MAX_FILE_BYTES}`);
  const rows = file.endsWith(".parquet") ? await readParquet(file) : splitRows(await Deno.readTextFile(file));
  return rows.join("\n\n");
}

/** Gets a split into the hub's cache, where it is as Parquet alone. */
export function fetchWikitext(settings: HubSettings, split: WikitextSplit = "test"): Promise<string> {
  const file = `${split}-00000-of-00001.parquet`;
  return fetchDatasetFile({ dataset: "Salesforce/wikitext", folder: "wikitext-2-raw-v1", file }, settings);
}

/** Rows of the text as the hub's loading script makes them: lines with their line break, empty where all is space. */
export function splitRows(text: string): string[] {
  const lines = text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  return lines.map((line) => strip(line) === "" ? "" : line);
}

async function readParquet(path: string): Promise<string[]> {
  const bytes = await Deno.readFile(path);
  let rows;
  try {
    rows = await parquetReadObjects({ file: bytes.buffer, columns: ["text"] });
  } catch (cause) {
    throw new SyntaxError(`${path} is not a Parquet file with a column text: ${clipText((cause as Error).message)}`, {
      cause,
    });
  }
  return rows.map(({ text }, row) => {
    if (typeof text !== "string") {
      throw new SyntaxError(`${path}: row ${row} is ${quoteText(text)}, must be a text`);
    }
    return text;
  });
}
