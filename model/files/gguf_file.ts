/**
 * Opening a GGUF file: its header is read by @huggingface/gguf and then checked against the file.
 *
 * @module
 */
import { findNotFinite } from "../../quant/check.ts";
import { gguf, type GGUFParseOutput } from "@huggingface/gguf";
import type { ByteSource } from "./byte_source.ts";
import { openFileSource } from "./file_source.ts";
import { decodeGguf, GGUF_TYPES, type GgufType } from "./gguf_types.ts";
import { release } from "../host/release.ts";

/** Where one tensor lies in its file. */
export interface GgufTensor {
  /** Name of the tensor, as llama.cpp calls it. */
  readonly name: string;
  /** Element type. */
  readonly type: GgufType;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** Offset of the first byte in the file. */
  readonly offset: number;
  /** Bytes of the tensor. */
  readonly sizeBytes: number;
}

/** A GGUF file whose header has been read and checked. */
export interface GgufFile {
  /** Where its bytes are read. */
  readonly source: ByteSource;
  /** Values of the header by key; whole numbers of 64 bits are BigInt. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Tensors by name. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/**
 * Opens a GGUF file.
 *
 * @throws {SyntaxError} naming the file when it is malformed, one of several shards, or has a type that isn't read
 */
export async function openGgufFile(path: string): Promise<GgufFile> {
  const source = await openFileSource(path);
  try {
    return describeFile(source, await readHeader(source));
  } catch (error) {
    source[Symbol.dispose]();
    throw error;
  }
}

async function readHeader(source: ByteSource): Promise<GGUFParseOutput<{ strict: false }>> {
  try {
    // The package opens no file in a worker, but fetches from anywhere what this hands it.
    return await gguf("https://gguf.invalid", { fetch: rangeFetch(source) }) as GGUFParseOutput<{ strict: false }>;
  } catch (cause) {
    throw new SyntaxError(`${source.name} is not a GGUF file that can be read: ${(cause as Error).message}`, { cause });
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

function describeFile(source: ByteSource, header: GGUFParseOutput<{ strict: false }>): GgufFile {
  const { metadata, littleEndian } = header;
  if (!littleEndian) throw new SyntaxError(`${source.name} is big-endian, must be little-endian`);
  if (Number(metadata["split.count"] ?? 1) > 1) {
    throw new SyntaxError(`${source.name} is one of ${metadata["split.count"]} shards, must be merged into one file`);
  }
  const tensors = new Map<string, GgufTensor>();
  for (const info of header.tensorInfos) {
    if (tensors.has(info.name)) throw new SyntaxError(`${source.name}: tensor ${info.name} is listed twice`);
    tensors.set(info.name, describeTensor(source, info, header.tensorDataOffset));
  }
  return { source, metadata, tensors };
}

function describeTensor(
  { name: file, sizeBytes: fileBytes }: ByteSource,
  { name, dtype, shape, offset }: GGUFParseOutput["tensorInfos"][number],
  dataOffset: bigint,
): GgufTensor {
  const type = GGUF_TYPES.get(dtype);
  if (!type) {
    const known = Array.from(GGUF_TYPES.values(), ({ name }) => name).join(", ");
    throw new SyntaxError(`${file}: tensor ${name} has type ${dtype}, must be one of ${known}`);
  }
  if (shape.length === 0 || shape[0] % BigInt(type.channels) !== 0n) {
    throw new SyntaxError(
      `${file}: tensor ${name} has rows of ${
        shape[0]
      } elements, must be a multiple of ${type.channels} for ${type.name}`,
    );
  }
  const elements = shape.reduce((product, length) => product * length, 1n);
  const sizeBytes = (elements / BigInt(type.channels)) * BigInt(type.bytes);
  const start = dataOffset + offset;
  if (elements < 1n || start + sizeBytes > BigInt(fileBytes)) {
    throw new SyntaxError(
      `${file}: tensor ${name} of shape [${shape.join(", ")}] ends at byte ${
        start + sizeBytes
      }, the file at ${fileBytes}`,
    );
  }
  return { name, type, shape: shape.map(Number).reverse(), offset: Number(start), sizeBytes: Number(sizeBytes) };
}

/** Reads a tensor as f32. @throws {SyntaxError} when it holds NaN or infinity */
export async function readGgufTensor({ source }: GgufFile, tensor: GgufTensor): Promise<Float32Array<ArrayBuffer>> {
  const bytes = await source.read(tensor.offset, tensor.sizeBytes);
  const values = decodeGguf(tensor.type, bytes);
  if (values.buffer !== bytes.buffer) release(bytes);
  const bad = findNotFinite(values);
  if (bad >= 0) {
    throw new SyntaxError(`${source.name}: tensor ${tensor.name} holds ${values[bad]} at element ${bad}`);
  }
  return values;
}
