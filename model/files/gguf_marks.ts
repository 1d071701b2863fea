// Byte order marks at the start of tokens: @huggingface/gguf takes them for marks of an encoding and drops them, while
// in a vocabulary they are characters.
import type { ByteSource } from "./byte_source.ts";

const TOKENS = "tokenizer.ggml.tokens";

/** Bytes of a header that are looked through; the largest vocabularies take some 10 MB. */
const MAX_HEADER_BYTES = 2 ** 27;

/** Bytes of a value by its type; those of text and lists are told by themselves. */
const SIZES: readonly number[] = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
const TEXT = 8;
const LIST = 9;

/** The header's values with the tokens as they are in the file. @param headerBytes bytes before the tensors' data */
export async function restoreMarks(
  source: ByteSource,
  metadata: Readonly<Record<string, unknown>>,
  headerBytes: number,
): Promise<Readonly<Record<string, unknown>>> {
  const { [TOKENS]: tokens } = metadata;
  if (!Array.isArray(tokens) || headerBytes > Math.min(source.sizeBytes, MAX_HEADER_BYTES)) return metadata;
  const bytes = await source.read(0, headerBytes);
  let texts: string[] | undefined;
  try {
    texts = findTokens(bytes);
  } catch (cause) {
    throw new SyntaxError(`${source.name}: the header ends before its tokens do`, { cause });
  }
  return texts?.length === tokens.length ? { ...metadata, [TOKENS]: texts } : metadata;
}

/** Texts of the list of tokens; undefined where it isn't found. */
function findTokens(bytes: Uint8Array): string[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  let at = 24;
  const number32 = () => view.getUint32((at += 4) - 4, true);
  const number64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const text = () => {
    const length = number64();
    return utf8.decode(bytes.subarray(at, at += length));
  };
  const skip = (type: number): void => {
    if (type === TEXT) text();
    else if (type !== LIST) at += SIZES[type];
    else {
      const [itemType, count] = [number32(), number64()];
      if (itemType !== TEXT && itemType !== LIST) at += count * SIZES[itemType];
      else for (let i = 0; i < count; i++) skip(itemType);
    }
  };
  for (let left = Number(view.getBigUint64(16, true)); left > 0; left--) {
    const [key, type] = [text(), number32()];
    if (!(at <= bytes.length)) return undefined;
    if (key !== TOKENS) skip(type);
    else if (type === LIST && number32() === TEXT) return Array.from({ length: number64() }, text);
    else return undefined;
  }
  return undefined;
}
