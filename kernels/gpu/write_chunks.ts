// Uploads larger than the memory that may lie between a program and its device.
import type { Capabilities } from "./capabilities.ts";

/**
 * Bytes handed to one `writeBuffer`, whose staging memory is only freed by a finished submit. Dawn uses that of small ones
 * again, for larger ones it asks the driver each time: 180 MB take 28 ms on an H200's host instead of 69.
 */
const UPLOAD_CHUNK_BYTES: Readonly<Record<Capabilities["implementation"], number>> = {
  Deno: 32 * 2 ** 20,
  Dawn: 2 ** 20,
  browser: 32 * 2 ** 20,
};

/** Writes to a buffer in chunks, submitting each, so that its staging memory can be freed. */
export function writeChunks(
  { queue }: GPUDevice,
  implementation: Capabilities["implementation"],
  buffer: GPUBuffer,
  data: ArrayBufferView<ArrayBuffer>,
  offsetBytes: number,
): void {
  const chunkBytes = UPLOAD_CHUNK_BYTES[implementation];
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let start = 0; start < bytes.length; start += chunkBytes) {
    const chunk = wholeWords(bytes.subarray(start, start + chunkBytes));
    queue.writeBuffer(buffer, offsetBytes + start, chunk);
    if (bytes.length > chunkBytes) queue.submit([]);
  }
}

/** `writeBuffer` wants whole words; only the last chunk of an odd-sized plane is copied. */
function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}
