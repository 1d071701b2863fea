// Reading back from a device and waiting for it, without the 10 ms that Deno sleeps in an awaited map.
import type { DeviceErrors } from "./device_errors.ts";
import type { Gpu } from "./gpu.ts";

/** How buffers to read through are used. */
const STAGING_USAGE = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
/** Larger ones are not kept. */
const KEPT_STAGING_BYTES = 2 ** 20;

/** Reads and waits of one device, one at a time: they share staging buffers. */
export class ReadBack {
  readonly #gpu: Gpu;
  readonly #errors: DeviceErrors;
  readonly #staging = new Map<number, GPUBuffer>();
  #fence: GPUBuffer | undefined;
  /** Ends when all reads and waits asked for have ended. */
  #reading: Promise<unknown> = Promise.resolve();

  /** For a device and what collects its errors. */
  constructor(gpu: Gpu, errors: DeviceErrors) {
    this.#gpu = gpu;
    this.#errors = errors;
  }

  /** Reads bytes of buffers after all submitted work. */
  read(parts: readonly Required<GPUBufferBinding>[]): Promise<ArrayBuffer[]> {
    return this.#afterOthers(async () => {
      const ends: number[] = [];
      for (const { size } of parts) ends.push((ends.at(-1) ?? 0) + size);
      const sizeBytes = ends.at(-1) ?? 0;
      const staging = await this.#stagingOf(sizeBytes);
      try {
        this.#errors.submit(`read of ${parts.map(({ buffer }) => buffer.label)}`, (encoder) => {
          for (const [i, { buffer, offset, size }] of parts.entries()) {
            encoder.copyBufferToBuffer(buffer, offset, staging, ends[i] - size, size);
          }
        });
        await this.#mapNow(staging);
        const mapped = staging.getMappedRange(0, sizeBytes);
        const bytes = parts.map(({ size }, i) => mapped.slice(ends[i] - size, ends[i]));
        staging.unmap();
        return bytes;
      } finally {
        if (staging.size > KEPT_STAGING_BYTES) this.#gpu.destroyBuffer(staging);
      }
    });
  }

  wait(): Promise<void> {
    return this.#afterOthers(async () => {
      const fence = this.#fence ??= await this.#keptStaging(4);
      this.#errors.submit("wait", (encoder) => encoder.clearBuffer(fence));
      await this.#mapNow(fence);
      fence.unmap();
    });
  }

  /** Runs one read or wait at a time; an error of what was submitted before comes first. */
  #afterOthers<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#reading.then(async () => {
      let value: T;
      try {
        value = await run();
      } catch (cause) {
        await this.#errors.throwReported();
        throw cause;
      }
      await this.#errors.throwSubmitted();
      return value;
    });
    this.#reading = result.catch(() => {});
    return result;
  }

  /** A buffer to read through; small ones are kept, one of each power of two. */
  async #stagingOf(sizeBytes: number): Promise<GPUBuffer> {
    if (sizeBytes > KEPT_STAGING_BYTES) {
      return await prime(await this.#gpu.createBuffer("staging", sizeBytes, STAGING_USAGE));
    }
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(sizeBytes, 256)));
    let staging = this.#staging.get(capacity);
    if (!staging) this.#staging.set(capacity, staging = await this.#keptStaging(capacity));
    return staging;
  }

  /** One that lives as long as the device: no reader could free it, so it isn't among the bytes that are held. */
  async #keptStaging(size: number): Promise<GPUBuffer> {
    const { device, heldBytes } = this.#gpu;
    const make = () => device.createBuffer({ label: "staging", size, usage: STAGING_USAGE });
    return await prime(await this.#errors.made("buffer staging", make, size, heldBytes));
  }

  /**
   * Maps a primed staging buffer as soon as the GPU is done.
   *
   * Deno's `mapAsync` blocks until the work is done, yet its promise resolves a fixed 10 ms later; so there the promise
   * is not awaited. Others take the ordinary way.
   */
  async #mapNow(staging: GPUBuffer): Promise<void> {
    const mapped = staging.mapAsync(GPUMapMode.READ);
    if (this.#gpu.capabilities.blockingMaps) mapped.catch(() => {});
    else await mapped;
  }
}

/** Maps a buffer once, which Deno's unawaited map needs: unprimed it aborts the process. */
async function prime(buffer: GPUBuffer): Promise<GPUBuffer> {
  await buffer.mapAsync(GPUMapMode.READ);
  buffer.getMappedRange();
  buffer.unmap();
  return buffer;
}
