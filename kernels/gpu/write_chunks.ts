// Uploads larger than the memory that may lie between a program and its device.

/** Bytes handed to one `writeBuffer`: its staging memory is only freed by a finished submit. */
const UPLOAD_CHUNK_BYTES = 32 * 2 ** 20;

/** Writes to a buffer in chunks, submitting each, so that its staging memory can be freed. */
export function writeChunks(
  { queue }: GPUDevice,
  buffer: GPUBuffer,
  data: ArrayBufferView<ArrayBuffer>,
  offsetBytes: number,
): void {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  for (let start = 0; start < bytes.length; start += UPLOAD_CHUNK_BYTES) {
    const chunk = wholeWords(bytes.subarray(start, start + UPLOAD_CHUNK_BYTES));
    queue.writeBuffer(buffer, offsetBytes + start, chunk);
    if (bytes.length > UPLOAD_CHUNK_BYTES) queue.submit([]);
  }
}

/** `writeBuffer` wants whole words; only the last chunk of an odd-sized plane is copied. */
function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}
