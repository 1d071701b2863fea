// The model that the server offers, read range by range.
import { type ByteSource, checkRange } from "../model/files/byte_source.ts";
import type { Checkpoint } from "../model/files/checkpoint.ts";
import { readCheckpointFolder } from "../model/files/checkpoint_folder.ts";
import { readPackedCheckpoint } from "../model/files/packed_checkpoint.ts";

export interface ModelListing {
  /** Name that it was asked for by. */
  readonly name: string;
  /** Whether it is one packed file, else files in Hugging Face layout. */
  readonly packed: boolean;
  /** Bytes of each file, by name. */
  readonly files: Readonly<Record<string, number>>;
}

/** Opens the served model; `base` is the page's address. @throws {SyntaxError} when it can't be read */
export async function openServedModel(base: string): Promise<Checkpoint> {
  const listing: ModelListing = await (await request(new URL("model.json", base))).json();
  const address = (file: string) => new URL(`model/${encodeURIComponent(file)}`, base);
  const open = (file: string) =>
    Promise.resolve(
      Object.hasOwn(listing.files, file) ? httpSource(file, address(file), listing.files[file]) : undefined,
    );
  if (listing.packed) {
    const [file] = Object.keys(listing.files);
    return await readPackedCheckpoint(listing.name, httpSource(file, address(file), listing.files[file]));
  }
  return await readCheckpointFolder({
    name: listing.name,
    open,
    readText: async (file) =>
      Object.hasOwn(listing.files, file) ? await (await request(address(file))).text() : undefined,
  });
}

/** A file behind a server that answers ranges. */
function httpSource(name: string, address: URL, sizeBytes: number): ByteSource {
  return {
    name,
    sizeBytes,
    async read(offset, length) {
      checkRange(name, sizeBytes, offset, length);
      // A range can't be empty.
      if (length === 0) return new Uint8Array();
      const response = await request(address, { range: `bytes=${offset}-${offset + length - 1}` });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length !== length) {
        throw new RangeError(`${name}: the server sent ${bytes.length} bytes, must send ${length}`);
      }
      return bytes;
    },
    [Symbol.dispose]: () => {},
  };
}

async function request(address: URL, headers: Record<string, string> = {}): Promise<Response> {
  const response = await fetch(address, { headers });
  if (!response.ok) throw new Error(`${address} gives ${response.status} ${response.statusText}, must give 200`);
  return response;
}
