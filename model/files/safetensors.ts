// Reader of the safetensors format: an 8-byte header length, a JSON header, then the tensors' bytes without gaps.
// Format: https://github.com/huggingface/safetensors. Only the header is read up front; tensors are read one by one.
import type { ByteSource } from "./byte_source.ts";
import { findDuplicateKey, parseBoundedJson } from "../host/json.ts";
import { clipText, quoteText } from "../host/quote_text.ts";

/** Element type of a tensor in a safetensors file. */
export type Dtype =
  | "F64"
  | "F32"
  | "F16"
  | "BF16"
  | "I64"
  | "I32"
  | "I16"
  | "I8"
  | "U64"
  | "U32"
  | "U16"
  | "U8"
  | "BOOL"
  | "C64"
  | "F8_E4M3"
  | "F8_E5M2"
  | "F8_E8M0"
  | "F6_E2M3"
  | "F6_E3M2"
  | "F4";

/** Bytes of one element of each dtype; of some it is a part of a byte. */
export const DTYPE_BYTES: Readonly<Record<Dtype, number>> = {
  ...{ F64: 8, I64: 8, U64: 8, F32: 4, I32: 4, U32: 4 },
  ...{ F16: 2, BF16: 2, I16: 2, U16: 2, I8: 1, U8: 1, BOOL: 1 },
  ...{ C64: 8, F8_E4M3: 1, F8_E5M2: 1, F8_E8M0: 1, F6_E2M3: 0.75, F6_E3M2: 0.75, F4: 0.5 },
};

/** A tensor whose rows lie one after the other: of a safetensors file, or of a GGUF file. */
export interface StoredRows {
  /** Name of the tensor. */
  readonly name: string;
  /** Dimensions, slowest first. */
  readonly shape: readonly number[];
  /** Offset of the first byte in the file. */
  readonly offset: number;
  /** Bytes of the tensor. */
  readonly sizeBytes: number;
}

/** Where one tensor lies in its file. */
export interface TensorInfo extends StoredRows {
  /** Element type. */
  readonly dtype: Dtype;
}

/** A safetensors file whose header has been read and checked. Dispose it to close it. */
export interface SafetensorsFile extends Disposable {
  /** Where its bytes are read. */
  readonly source: ByteSource;
  /** In the order in which they lie in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Text entries of the header. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** A tensor and the file that holds it. */
export interface ShardTensor {
  /** The file. */
  readonly file: SafetensorsFile;
  /** Where it lies there. */
  readonly info: TensorInfo;
}

/** Longest header that is read, as in the reference implementation. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads and checks the header of a safetensors file, wherever its bytes lie: {@linkcode openSafetensors} does it for a
 * file on a disk.
 *
 * @throws {SyntaxError} naming the file and the offset when the file is truncated or malformed
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsFile> {
  const fail = (offset: number, message: string): never => {
    throw new SyntaxError(`${source.name}, byte ${offset}: ${message}`);
  };
  if (source.sizeBytes < 8) fail(0, `file has ${source.sizeBytes} bytes, must have at least 8`);
  const prefix = await source.read(0, 8);
  if (new TextDecoder().decode(prefix) === "version ") {
    fail(0, "this is a git-lfs pointer in place of the file, must be fetched with git lfs pull");
  }
  const headerBytes = Number(new DataView(prefix.buffer).getBigUint64(0, true));
  if (headerBytes > MAX_HEADER_BYTES) fail(0, `header length is ${headerBytes}, must be at most ${MAX_HEADER_BYTES}`);
  const dataStart = 8 + headerBytes;
  if (dataStart > source.sizeBytes) {
    fail(0, `header length is ${headerBytes}, but only ${source.sizeBytes - 8} bytes follow`);
  }
  const text = decodeUtf8(await source.read(8, headerBytes), fail);
  const header = parseHeader(text, fail);
  const { __metadata__: metadata, ...entries } = header;
  const infos = Object.entries(entries)
    .map(([name, entry]) => parseEntry(name, entry, dataStart, fail))
    .sort((a, b) => a.offset - b.offset || a.sizeBytes - b.sizeBytes);
  let end = dataStart;
  for (const info of infos) {
    if (info.offset !== end) {
      const problem = info.offset < end ? "overlaps the tensor before it" : "leaves a gap before it";
      fail(info.offset, `tensor ${clipText(info.name)} starts here and ${problem}, must start at ${end}`);
    }
    end += info.sizeBytes;
  }
  if (end !== source.sizeBytes) {
    fail(end, `tensors end here, but the file ends at ${source.sizeBytes} (truncated or trailing bytes)`);
  }
  return {
    source,
    tensors: new Map(infos.map((info) => [info.name, info])),
    metadata: checkMetadata(metadata ?? {}, fail),
    [Symbol.dispose]: () => source[Symbol.dispose](),
  };
}

type Fail = (offset: number, message: string) => never;

function decodeUtf8(bytes: Uint8Array, fail: Fail): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return fail(8, "header is not valid UTF-8");
  }
}

function parseHeader(text: string, fail: Fail): Record<string, unknown> {
  let header: unknown;
  try {
    header = parseBoundedJson(text);
  } catch (error) {
    fail(8, `header is not valid JSON: ${clipText((error as Error).message)}`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    fail(8, "header is not a JSON object");
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate) fail(8 + duplicate.offset, `tensor ${clipText(duplicate.key)} is listed twice`);
  return header as Record<string, unknown>;
}

function parseEntry(name: string, entry: unknown, dataStart: number, fail: Fail): TensorInfo {
  const { dtype, shape, data_offsets: range } = (entry ?? {}) as Record<string, unknown>;
  if (!isNaturals(shape) || !isNaturals(range) || range.length !== 2 || range[0] > range[1]) {
    return fail(8, `tensor ${clipText(name)} has shape ${quoteText(shape)} and data_offsets ${quoteText(range)}`);
  }
  const offset = dataStart + range[0];
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype)) {
    return fail(
      offset,
      `tensor ${clipText(name, 60)} has dtype ${quoteText(dtype, 20)}, must be one of ${
        Object.keys(DTYPE_BYTES).join(", ")
      }`,
    );
  }
  const sizeBytes = range[1] - range[0];
  const wanted = shape.reduce((product, length) => product * length, DTYPE_BYTES[dtype as Dtype]);
  if (sizeBytes !== wanted) {
    fail(
      offset,
      `tensor ${clipText(name)} has ${sizeBytes} bytes, must have ${wanted} for ${dtype} [${
        clipText(shape.join(", "))
      }]`,
    );
  }
  return { name, dtype: dtype as Dtype, shape, offset, sizeBytes };
}

function isNaturals(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function checkMetadata(metadata: unknown, fail: Fail): Record<string, string> {
  const isStrings = typeof metadata === "object" && metadata !== null && !Array.isArray(metadata) &&
    Object.values(metadata).every((value) => typeof value === "string");
  return isStrings ? (metadata as Record<string, string>) : fail(8, "__metadata__ is not an object of strings");
}

/** Finds a tensor of a file. @throws {SyntaxError} when the file doesn't hold it */
export function tensorInfo(file: SafetensorsFile, name: string): TensorInfo {
  const info = file.tensors.get(name);
  if (!info) throw new SyntaxError(`${file.source.name}: no tensor ${clipText(name)}`);
  return info;
}

/**
 * Some rows of a tensor (elements of its first dimension), which lie one after the other: a tensor of the same file.
 *
 * @throws {RangeError} when the tensor hasn't these rows
 */
export function tensorRows<T extends StoredRows>(tensor: T, first: number, count: number): T {
  const [rows = 0, ...rest] = tensor.shape;
  if (!(Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count >= 0 && first + count <= rows)) {
    throw new RangeError(
      `rows ${first}..${first + count} of tensor ${tensor.name} asked for, must lie within 0..${rows}`,
    );
  }
  const rowBytes = rows === 0 ? 0 : tensor.sizeBytes / rows;
  return { ...tensor, shape: [count, ...rest], offset: tensor.offset + first * rowBytes, sizeBytes: count * rowBytes };
}

/** Reads the bytes of a tensor as they lie in the file, little end first. */
export function readTensorBytes(file: SafetensorsFile, tensor: TensorInfo): Promise<Uint8Array<ArrayBuffer>> {
  return file.source.read(tensor.offset, tensor.sizeBytes);
}
