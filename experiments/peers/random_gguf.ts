// GGUF files of random weights in the shape of a published model, for measuring llama.cpp's speed without a download.
import { Q2K_BYTES, Q2K_CHANNELS } from "../../quant/baselines/q2k.ts";
import { createRandom, type Random } from "../../quant/random.ts";
import { LAYER_PARTS } from "../../model/files/gguf_checkpoint.ts";
import { GGUF_TYPES, type GgufType } from "../../model/files/gguf_types.ts";
import { type Write, writeBeside } from "../../model/host/atomic_file.ts";
import { LINEAR_KINDS, linearShape } from "../../model/llama/layer.ts";
import type { ModelShape } from "../../model/llama/shapes.ts";

/** Formats of the linear layers; embedding and head are f16 in both, as in our engine. */
export const GGUF_FORMATS = ["Q2_K", "F16"] as const;

export type GgufFormat = typeof GGUF_FORMATS[number];

/** Types of tensors by their number in the file. */
const TYPES = { F32: 0, F16: 1, Q2_K: 10 } as const satisfies Record<GgufFormat | "F32", number>;

/** `general.file_type` of llama.cpp. */
const FILE_TYPES: Readonly<Record<GgufFormat, number>> = { F16: 1, Q2_K: 10 };

interface Tensor {
  readonly name: string;
  /** Channels first, as the file has them. */
  readonly sizes: readonly number[];
  readonly storage: keyof typeof TYPES;
}

const ALIGNMENT = 32;
/** Blocks that are drawn; tensors repeat them. */
const DRAWN_BLOCKS = 2 ** 16;
/** Bytes of a write. */
const CHUNK_BYTES = 16 * 2 ** 20;

/**
 * Writes a file that llama.cpp opens, without a vocabulary.
 *
 * @param context longest context
 * @throws {RangeError} for Q2_K where a row isn't whole super-blocks
 */
export async function writeRandomGguf(
  path: string,
  shape: ModelShape,
  format: GgufFormat,
  context: number,
  seed: number,
): Promise<void> {
  const tensors = tensorsOf(shape, format);
  const uneven = tensors.find((tensor) => tensor.sizes[0] % typeOf(tensor).channels !== 0);
  if (uneven) {
    throw new RangeError(`${uneven.name} has ${uneven.sizes[0]} channels, must be a multiple of ${Q2K_CHANNELS}`);
  }
  const header = headerOf(shape, format, context, tensors);
  const random = createRandom(seed);
  const patterns = {
    F32: repeatUpTo(new Uint8Array(new Float32Array([1]).buffer)),
    F16: repeatUpTo(drawHalves(random, shape.hidden)),
    Q2_K: repeatUpTo(drawQ2k(random, shape.hidden)),
  };
  await writeBeside(path, async (write) => {
    await write(header);
    for (const tensor of tensors) await writeRepeated(write, patterns[tensor.storage], bytesOf(tensor));
  });
}

function tensorsOf(shape: ModelShape, format: GgufFormat): Tensor[] {
  const { vocabulary, hidden, layers, tiedHead } = shape;
  const norm = (name: string): Tensor => ({ name, sizes: [hidden], storage: "F32" });
  const half = (name: string): Tensor => ({ name, sizes: [hidden, vocabulary], storage: "F16" });
  return [
    half("token_embd.weight"),
    ...Array.from({ length: layers }, (_, layer) => [
      norm(`blk.${layer}.attn_norm.weight`),
      norm(`blk.${layer}.ffn_norm.weight`),
      ...LINEAR_KINDS.map((kind): Tensor => ({
        name: `blk.${layer}.${LAYER_PARTS[kind]}.weight`,
        sizes: linearShape(shape, kind).toReversed(),
        storage: format,
      })),
    ]).flat(),
    norm("output_norm.weight"),
    ...(tiedHead ? [] : [half("output.weight")]),
  ];
}

function typeOf({ storage }: Tensor): GgufType {
  return GGUF_TYPES.get(TYPES[storage])!;
}

function bytesOf(tensor: Tensor): number {
  const { channels, bytes } = typeOf(tensor);
  return (tensor.sizes.reduce((product, size) => product * size, 1) / channels) * bytes;
}

const padded = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** Everything before the tensors' bytes. Layout: docs/gguf.md of https://github.com/ggml-org/ggml. */
function headerOf(shape: ModelShape, format: GgufFormat, context: number, tensors: readonly Tensor[]): Uint8Array {
  const texts = { "general.architecture": "llama", "general.name": shape.name, "tokenizer.ggml.model": "no_vocab" };
  const numbers = {
    "general.file_type": FILE_TYPES[format],
    "llama.context_length": context,
    "llama.embedding_length": shape.hidden,
    "llama.feed_forward_length": shape.intermediate,
    "llama.block_count": shape.layers,
    "llama.attention.head_count": shape.heads,
    "llama.attention.head_count_kv": shape.keyValueHeads,
    "llama.rope.dimension_count": shape.headSize,
    "llama.vocab_size": shape.vocabulary,
  };
  const header = createHeader();
  header.bytes.push(...new TextEncoder().encode("GGUF"));
  header.u32(3);
  header.u64(tensors.length);
  header.u64(Object.keys(texts).length + Object.keys(numbers).length + 1);
  const key = (name: string, type: number) => {
    header.text(name);
    header.u32(type);
  };
  for (const [name, value] of Object.entries(texts)) {
    key(name, TEXT_TYPE);
    header.text(value);
  }
  for (const [name, value] of Object.entries(numbers)) {
    key(name, U32_TYPE);
    header.u32(value);
  }
  key("llama.attention.layer_norm_rms_epsilon", F32_TYPE);
  header.f32(1e-5);
  let offset = 0;
  for (const tensor of tensors) {
    header.text(tensor.name);
    header.u32(tensor.sizes.length);
    for (const size of tensor.sizes) header.u64(size);
    header.u32(TYPES[tensor.storage]);
    header.u64(offset);
    offset += padded(bytesOf(tensor));
  }
  while (header.bytes.length % ALIGNMENT !== 0) header.bytes.push(0);
  return Uint8Array.from(header.bytes);
}

const [U32_TYPE, F32_TYPE, TEXT_TYPE] = [4, 6, 8];

/** Bytes of a header, and what is put behind them, little end first. */
function createHeader() {
  const bytes: number[] = [];
  const put = (size: number, set: (view: DataView<ArrayBuffer>) => void) => {
    const view = new DataView(new ArrayBuffer(size));
    set(view);
    bytes.push(...new Uint8Array(view.buffer));
  };
  const u64 = (value: number) => put(8, (view) => view.setBigUint64(0, BigInt(value), true));
  return {
    bytes,
    u64,
    u32: (value: number) => put(4, (view) => view.setUint32(0, value, true)),
    f32: (value: number) => put(4, (view) => view.setFloat32(0, value, true)),
    text(value: string) {
      const encoded = new TextEncoder().encode(value);
      u64(encoded.length);
      bytes.push(...encoded);
    },
  };
}

/** f16 weights that keep a product about as large as its input. */
function drawHalves(random: Random, channels: number): Uint8Array<ArrayBuffer> {
  const drawn = Float16Array.from({ length: DRAWN_BLOCKS }, () => random.normal() / Math.sqrt(channels));
  return new Uint8Array(drawn.buffer);
}

/** Super-blocks of random codes; their mean is 0 where the scale of minima is 1.5 times that of scales. */
function drawQ2k(random: Random, channels: number): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length: DRAWN_BLOCKS * Q2K_BYTES }, () => random.integer(256));
  const view = new DataView(bytes.buffer);
  const scale = 0.1 / Math.sqrt(channels);
  for (let end = Q2K_BYTES; end <= bytes.length; end += Q2K_BYTES) {
    view.setFloat16(end - 4, scale, true);
    view.setFloat16(end - 2, 1.5 * scale, true);
  }
  return bytes;
}

/** A pattern as often as a write holds it. */
function repeatUpTo(pattern: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const repeated = new Uint8Array(Math.max(1, Math.floor(CHUNK_BYTES / pattern.length)) * pattern.length);
  for (let at = 0; at < repeated.length; at += pattern.length) repeated.set(pattern, at);
  return repeated;
}

async function writeRepeated(write: Write, pattern: Uint8Array<ArrayBuffer>, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += pattern.length) {
    await write(pattern.subarray(0, Math.min(pattern.length, bytes - at)));
  }
  await write(new Uint8Array(padded(bytes) - bytes));
}
