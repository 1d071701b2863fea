// Opening a GGUF file: its header is read by @huggingface/gguf and then checked against the file.
import { GGMLQuantizationType, gguf, type GGUFParseOutput } from "@huggingface/gguf";
import type { ByteSource } from "./byte_source.ts";
import { openFileSource } from "./file_source.ts";
import type { GgufTensor } from "./gguf_tensor.ts";
import { GGUF_TYPES } from "./gguf_types.ts";
import { clipText } from "../host/quote_text.ts";
import { restoreMarks } from "./gguf_marks.ts";

/** A GGUF file, or all parts of one that was split, whose headers have been read and checked. Dispose it to close them. */
export interface GgufFile extends Disposable {
  /** The file, or the first of its parts. */
  readonly source: ByteSource;
  /** Paths of all parts. */
  readonly paths: readonly string[];
  /** Values of the header by key; whole numbers of 64 bits are BigInt. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Tensors of all parts by name. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** Whether a file is GGUF by its first four bytes, whatever its name. */
export async function isGguf(path: string): Promise<boolean> {
  using source = await openFileSource(path);
  return new TextDecoder().decode(await source.read(0, Math.min(4, source.sizeBytes))) === "GGUF";
}

type Header = GGUFParseOutput<{ strict: false }>;

/**
 * Opens a GGUF file; of one that was split (`NAME-00001-of-00003.gguf`), any part opens all of them.
 *
 * @throws {SyntaxError} naming the file when it is malformed or a part is missing
 */
export async function openGgufFile(path: string): Promise<GgufFile> {
  using opened = new DisposableStack();
  const open = async (partPath: string) => {
    const source = opened.use(await openFileSource(partPath));
    return { source, header: await readHeader(source) };
  };
  const named = await open(path);
  const paths = partPaths(path, named.header);
  const parts = [];
  for (const partPath of paths) parts.push(partPath === path ? named : await openPart(open, partPath, path));
  parts.forEach(({ source, header }, i) => checkPart(source, header, i, parts.length));
  const [{ source, header }] = parts;
  const metadata = await restoreMarks(source, header.metadata, Number(header.tensorDataOffset));
  const tensors = describeTensors(parts);
  const count = Number(metadata["split.tensors.count"] ?? tensors.size);
  if (count !== tensors.size) {
    throw new SyntaxError(`${source.name}: its parts hold ${tensors.size} tensors, must hold ${count}`);
  }
  const owned = opened.move();
  return { source, paths, metadata, tensors, [Symbol.dispose]: () => owned.dispose() };
}

/** Paths of all parts of a file: its own where it is whole. */
function partPaths(path: string, { metadata }: Header): string[] {
  const count = Number(metadata["split.count"] ?? 1);
  if (count <= 1) return [path];
  const [, stem, of] = /^(.*)-\d{5}-of-(\d{5})\.gguf$/.exec(path) ?? [];
  if (stem === undefined || Number(of) !== count) {
    const name = (number: string) => `NAME-${number}-of-${String(count).padStart(5, "0")}.gguf`;
    throw new SyntaxError(`${path} is one of ${count} parts, must be called as they are: ${name("00001")} and so on`);
  }
  return Array.from({ length: count }, (_, i) => `${stem}-${String(i + 1).padStart(5, "0")}-of-${of}.gguf`);
}

async function openPart<T>(open: (path: string) => Promise<T>, path: string, wanted: string): Promise<T> {
  return await open(path).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new SyntaxError(`${path} is missing, must lie beside ${wanted}`);
  });
}

function checkPart({ name }: ByteSource, { metadata }: Header, index: number, count: number): void {
  if (count === 1) return;
  const [number, of] = [metadata["split.no"], metadata["split.count"]].map(Number);
  if (number !== index || of !== count) {
    throw new SyntaxError(`${name} says that it is part ${number + 1} of ${of}, must be ${index + 1} of ${count}`);
  }
}

async function readHeader(source: ByteSource): Promise<Header> {
  try {
    // The package opens no file in a worker, but fetches from anywhere what this hands it.
    return await gguf("https://gguf.invalid", { fetch: rangeFetch(source) }) as Header;
  } catch (cause) {
    throw new SyntaxError(`${source.name} is not a GGUF file that can be read: ${clipText((cause as Error).message)}`, {
      cause,
    });
  }
}

/** A `fetch` that answers requests for ranges with the bytes of a source. */
function rangeFetch(source: ByteSource): typeof fetch {
  return async (_, init) => {
    const range = new Headers(init?.headers).get("range");
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(range ?? "") ?? [];
    if (last === undefined) throw new TypeError(`range is ${range}, must be bytes=FIRST-LAST`);
    const [begin, end] = [Number(first), Number(last) + 1].map((at) => Math.min(at, source.sizeBytes));
    const headers = { "content-range": `bytes ${begin}-${end - 1}/${source.sizeBytes}` };
    return new Response(await source.read(begin, end - begin), { status: 206, headers });
  };
}

function describeTensors(
  parts: readonly { readonly source: ByteSource; readonly header: Header }[],
): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const { source, header: { littleEndian, metadata, tensorInfos, tensorDataOffset } } of parts) {
    const alignment = Number(metadata["general.alignment"] ?? 32);
    // The package rounds offsets as for a power of two, and llama.cpp takes no other.
    if (!Number.isInteger(Math.log2(alignment))) {
      throw new SyntaxError(`${source.name}: general.alignment is ${alignment}, must be a power of two`);
    }
    if (!littleEndian) throw new SyntaxError(`${source.name} is big-endian, must be little-endian`);
    // Beyond the file's end the package reads zeros.
    if (tensorInfos.length > 0 && tensorDataOffset > BigInt(source.sizeBytes)) {
      throw new SyntaxError(`${source.name} ends at byte ${source.sizeBytes}, before its tensors begin (truncated)`);
    }
    for (const info of tensorInfos) {
      if (tensors.has(info.name)) {
        throw new SyntaxError(`${source.name}: tensor ${clipText(info.name)} is listed twice`);
      }
      tensors.set(info.name, describeTensor(source, info, tensorDataOffset));
    }
  }
  return tensors;
}

function describeTensor(
  source: ByteSource,
  { name, dtype, shape, offset }: GGUFParseOutput["tensorInfos"][number],
  dataOffset: bigint,
): GgufTensor {
  const { name: file, sizeBytes: fileBytes } = source;
  const type = GGUF_TYPES.get(dtype) ?? { name: GGMLQuantizationType[dtype] ?? `${dtype}`, channels: 1, bytes: 0 };
  if (shape.length === 0 || shape[0] % BigInt(type.channels) !== 0n) {
    throw new SyntaxError(
      `${file}: tensor ${clipText(name)} has rows of ${
        shape[0]
      } elements, must be a multiple of ${type.channels} for ${type.name}`,
    );
  }
  const elements = shape.reduce((product, length) => product * length, 1n);
  const sizeBytes = (elements / BigInt(type.channels)) * BigInt(type.bytes);
  const start = dataOffset + offset;
  if (elements < 1n || start + sizeBytes > BigInt(fileBytes)) {
    throw new SyntaxError(
      `${file}: tensor ${clipText(name)} of shape [${clipText(shape.join(", "))}] ends at byte ${
        start + sizeBytes
      }, the file at ${fileBytes}`,
    );
  }
  return {
    name,
    type,
    shape: shape.map(Number).reverse(),
    source,
    offset: Number(start),
    sizeBytes: Number(sizeBytes),
  };
}

/** What a header says, as JSON: whole numbers of 64 bits become numbers, whatever stands beside them. */
export function headerJson(value: object): string {
  return JSON.stringify(value, (_, item) => typeof item === "bigint" ? Number(item) : item);
}
