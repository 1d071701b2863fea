/**
 * The test split of WikiText-2, on which GPTQ and its successors report perplexity, joined as they do.
 *
 * @module
 */
import { parquetReadObjects } from "hyparquet";
import { fetchFile } from "../hub/hub_download.ts";
import { hubFile, type HubRepo, openSnapshot } from "../hub/hub_repo.ts";
import { type HubSettings, readHubSettings } from "../hub/hub_settings.ts";
import { join } from "@std/path";
import { strip } from "../host/python_text.ts";
import { clipText, quoteText } from "../host/quote_text.ts";

/** Where the hub has it; it has this data set as Parquet alone. */
const REPO: HubRepo = { type: "dataset", name: "Salesforce/wikitext", revision: "main" };
const FOLDER = "wikitext-2-raw-v1";
const FILE = `${FOLDER}/test-00000-of-00001.parquet`;

/** Largest file that is read; the test split has 1.3 MB. */
const MAX_FILE_BYTES = 2 ** 26;

/**
 * Reads the text: rows joined by an empty line.
 *
 * @param path the text as first published (wiki.test.raw) or the hub's Parquet file; by default loaded from the hub
 * @throws {SyntaxError} for a file that is too large or no Parquet
 */
export async function readWikitext(path?: string): Promise<string> {
  const file = path ?? await fetchWikitext(await readHubSettings());
  const { size } = await Deno.stat(file);
  if (size > MAX_FILE_BYTES) throw new SyntaxError(`${file} has ${size} bytes, must have at most ${MAX_FILE_BYTES}`);
  const rows = file.endsWith(".parquet") ? await readParquet(file) : splitRows(await Deno.readTextFile(file));
  return rows.join("\n\n");
}

/** Gets the test split into the hub's cache. */
export async function fetchWikitext(settings: HubSettings): Promise<string> {
  const snapshot = await openSnapshot(REPO, settings, FOLDER);
  return snapshot.files ? await fetchFile(snapshot, hubFile(snapshot, FILE), settings) : join(snapshot.directory, FILE);
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
