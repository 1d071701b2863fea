// Ranges of buffers.

/** A plane of a matrix or of a cache: a range of a buffer, which others may share. */
export type Plane = Required<GPUBufferBinding>;

export function whole(buffer: GPUBuffer): Plane {
  return { buffer, offset: 0, size: buffer.size };
}
