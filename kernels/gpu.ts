/**
 * The only file that talks to WebGPU's device API: set-up, buffers, pipelines, submission, waiting, reading back.
 *
 * @module
 */

import { adapterName, isSoftwareAdapter } from "./adapter.ts";

/** Thrown when the device is lost: driver reset, hang, or {@linkcode Gpu.close}. */
export class DeviceLostError extends Error {
  /** Name of the class. */
  override readonly name = "DeviceLostError";
}

/** Thrown when a buffer doesn't fit in device memory. */
export class OutOfMemoryError extends Error {
  /** Name of the class. */
  override readonly name = "OutOfMemoryError";

  /** With the message and the sizes behind it. */
  constructor(
    message: string,
    /** Bytes that were asked for. */
    readonly neededBytes: number,
    /** Bytes held in buffers of this device when it failed. */
    readonly heldBytes: number,
  ) {
    super(message);
  }
}

/** What {@linkcode openGpu} accepts. */
export interface GpuOptions {
  /** Leave out subgroups even where the device has them. Default: false. */
  readonly withoutSubgroups?: boolean;
}

/** A compiled compute kernel. */
export interface Kernel {
  /** Name in error messages. */
  readonly label: string;
  /** The compiled shader. */
  readonly pipeline: GPUComputePipeline;
}

/** One dispatch: a kernel, its bindings and its number of workgroups. */
export interface Dispatch {
  /** What runs. */
  readonly kernel: Kernel;
  /** Its buffers, group 0. */
  readonly bindings: GPUBindGroup;
  /** How often, in three dimensions. */
  readonly workgroups: readonly [x: number, y: number, z: number];
}

/** Features used where the device has them; all kernels but those that name one run without. */
const WANTED_FEATURES = ["shader-f16", "timestamp-query", "subgroups"];

/** Limits asked for at their full value, so that large tensors need not be split. */
const WANTED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** Larger buffers to read through are not kept. */
const KEPT_STAGING_BYTES = 2 ** 20;

/** Bytes handed to one `writeBuffer`: its staging memory is only freed by a finished submit. */
const UPLOAD_CHUNK_BYTES = 32 * 2 ** 20;

/**
 * Opens the first adapter.
 *
 * @throws {Error} when there is no adapter, with the packages that bring a software one
 */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    throw new Error(
      "no WebGPU adapter found, want a Vulkan, Metal or D3D12 driver (Debian: mesa-vulkan-drivers is a software one)",
    );
  }
  const requiredLimits: Record<string, number> = {};
  for (const name of WANTED_LIMITS) requiredLimits[name] = adapter.limits[name];
  const features = await usableFeatures(adapter, options);
  const device = await adapter.requestDevice({ requiredFeatures: features as GPUFeatureName[], requiredLimits });
  return new Gpu(adapter, device, new Set(features));
}

/** Whether WebGPU is Deno's: wgpu with its compiler naga, not a browser's. */
const IS_DENO = "Deno" in globalThis;

/** Deno 2.9 has subgroups without listing them, so there a feature not listed is tried on a throw-away device. */
async function usableFeatures(adapter: GPUAdapter, options: GpuOptions): Promise<string[]> {
  const wanted = WANTED_FEATURES.filter((name) => !(name === "subgroups" && options.withoutSubgroups));
  const usable: string[] = [];
  for (const name of wanted) {
    if (adapter.features.has(name as GPUFeatureName)) usable.push(name);
    else if (IS_DENO && await canRequest(name)) usable.push(name);
  }
  return usable;
}

async function canRequest(feature: string): Promise<boolean> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  try {
    const device = await adapter!.requestDevice({ requiredFeatures: [feature as GPUFeatureName] });
    device.destroy();
    return true;
  } catch {
    return false;
  }
}

/** A WebGPU device with the few operations that kernels need; every GPU error becomes an exception. */
export class Gpu implements Disposable {
  /** The device itself, for what this class leaves out. */
  readonly device: GPUDevice;
  /** As the driver names it, such as `NVIDIA H200` or `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly adapterName: string;
  /** True for an adapter that runs on the CPU, whose timings say nothing about GPUs. */
  readonly isSoftware: boolean;
  /** Features that were granted: shader-f16, timestamp-query, subgroups. */
  readonly features: ReadonlySet<string>;
  /** Lanes of a subgroup where all subgroups have the same power-of-two size and can be used, else 0. */
  readonly subgroupSize: number;
  readonly #kernels = new Map<string, Promise<Kernel>>();
  #heldBytes = 0;
  #peakBytes = 0;
  #lost: string | undefined;
  #uncaptured: string | undefined;
  #fence: GPUBuffer | undefined;
  readonly #staging = new Map<number, GPUBuffer>();
  readonly #live = new Set<GPUBuffer>();
  /** The first error of what was submitted since the last read or wait. */
  #submitted: Promise<Error | undefined> = Promise.resolve(undefined);
  /** Ends when all reads and waits asked for have ended: they share staging buffers. */
  #reading: Promise<unknown> = Promise.resolve();

  /** Use {@linkcode openGpu}. */
  constructor(adapter: GPUAdapter, device: GPUDevice, features: ReadonlySet<string>) {
    this.device = device;
    this.features = features;
    this.adapterName = adapterName(adapter.info);
    this.isSoftware = isSoftwareAdapter(adapter.info);
    this.subgroupSize = features.has("subgroups") ? fixedSubgroupSize(adapter.info) : 0;
    device.lost.then((info) => this.#lost = `${info.reason || "unknown"}: ${info.message}`);
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#uncaptured ??= (event as GPUUncapturedErrorEvent).error.message;
    });
  }

  /** Bytes held in buffers made by this object. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** The most bytes held at once. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /**
   * Makes a zeroed buffer.
   *
   * @throws {RangeError} when the size is not a positive multiple of 4 within the device's limit
   * @throws {OutOfMemoryError} when the device has no room
   */
  async createBuffer(label: string, sizeBytes: number, usage: GPUBufferUsageFlags): Promise<GPUBuffer> {
    const limit = this.device.limits.maxBufferSize;
    if (!(sizeBytes > 0 && sizeBytes <= limit && sizeBytes % 4 === 0)) {
      throw new RangeError(`buffer ${label} has ${sizeBytes} bytes, must be a positive multiple of 4 up to ${limit}`);
    }
    const make = () => this.device.createBuffer({ label, size: sizeBytes, usage });
    const buffer = await this.#scoped(`buffer ${label}`, make, sizeBytes);
    this.#live.add(buffer);
    this.#heldBytes += sizeBytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#heldBytes);
    return buffer;
  }

  /** Makes a storage buffer that can be copied from and to. */
  createStorage(label: string, sizeBytes: number): Promise<GPUBuffer> {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    return this.createBuffer(label, sizeBytes, usage);
  }

  /** Makes a storage buffer with this content, padded with zeros to a multiple of `alignBytes`. */
  async uploadStorage(label: string, data: ArrayBufferView<ArrayBuffer>, alignBytes = 16): Promise<GPUBuffer> {
    const sizeBytes = Math.max(1, Math.ceil(data.byteLength / alignBytes)) * alignBytes;
    const buffer = await this.createStorage(label, sizeBytes);
    this.write(buffer, data);
    return buffer;
  }

  /** Writes to a buffer in chunks, submitting each, so that its staging memory can be freed. */
  write(buffer: GPUBuffer, data: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    for (let start = 0; start < bytes.length; start += UPLOAD_CHUNK_BYTES) {
      const chunk = wholeWords(bytes.subarray(start, start + UPLOAD_CHUNK_BYTES));
      this.device.queue.writeBuffer(buffer, offsetBytes + start, chunk);
      if (bytes.length > UPLOAD_CHUNK_BYTES) this.device.queue.submit([]);
    }
  }

  /** Copies bytes from one buffer to another; offsets and size are multiples of 4. */
  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, sizeBytes: number): void {
    this.#watch(`copy of ${from.label}`, () => {
      const encoder = this.device.createCommandEncoder();
      encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, sizeBytes);
      this.device.queue.submit([encoder.finish()]);
    });
  }

  /** Makes a storage buffer with the same content. */
  async duplicate(buffer: GPUBuffer): Promise<GPUBuffer> {
    const copy = await this.createStorage(buffer.label, buffer.size);
    this.copy(buffer, 0, copy, 0, buffer.size);
    return copy;
  }

  /** Frees a buffer made by {@linkcode createBuffer}; one that is freed already stays so. */
  destroyBuffer(buffer: GPUBuffer): void {
    if (!this.#live.delete(buffer)) return;
    this.#heldBytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Compiles a kernel, or returns it where the same code was compiled with the same constants before.
   * Its entry point is `main`, its bindings are all in group 0.
   *
   * @param constants values of the `override` constants
   * @throws {SyntaxError} when the shader doesn't compile, with the compiler's message
   */
  createKernel(label: string, code: string, constants: Readonly<Record<string, number>> = {}): Promise<Kernel> {
    const key = JSON.stringify([label, code, constants]);
    let kernel = this.#kernels.get(key);
    if (!kernel) this.#kernels.set(key, kernel = this.#compile(label, code, constants));
    return kernel;
  }

  async #compile(label: string, code: string, constants: Readonly<Record<string, number>>): Promise<Kernel> {
    const make = () => {
      const module = this.device.createShaderModule({
        label,
        code: IS_DENO ? code : withEnableLines(code),
      });
      const compute = { module, entryPoint: "main", constants: { ...constants } };
      return this.device.createComputePipeline({ label, layout: "auto", compute });
    };
    try {
      return { label, pipeline: await this.#scoped(`kernel ${label}`, make, 0) };
    } catch (cause) {
      if (cause instanceof DeviceLostError || cause instanceof OutOfMemoryError) throw cause;
      throw new SyntaxError((cause as Error).message, { cause });
    }
  }

  /** Binds buffers, or ranges of them, to the bindings 0, 1, ... of a kernel. */
  bind(kernel: Kernel, buffers: readonly (GPUBuffer | GPUBufferBinding)[]): GPUBindGroup {
    const entries = buffers.map((item, binding) => ({
      binding,
      resource: "buffer" in item ? item : { buffer: item },
    }));
    const { label, pipeline } = kernel;
    const make = () => this.device.createBindGroup({ label, layout: pipeline.getBindGroupLayout(0), entries });
    return this.#watch(`bindings of ${label}`, make);
  }

  /** Submits dispatches in one pass, in order; each sees what those before it wrote. */
  submit(dispatches: readonly Dispatch[]): void {
    this.#watch("work submitted", () => {
      const encoder = this.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      encodeDispatches(pass, dispatches);
      pass.end();
      this.device.queue.submit([encoder.finish()]);
    });
  }

  /**
   * Waits until all submitted work is done.
   *
   * @throws {DeviceLostError}
   * @throws {Error} with the first GPU error since the last read or wait
   */
  wait(): Promise<void> {
    return this.#afterOthers(async () => {
      this.#fence ??= await this.#primedStaging(4);
      const fence = this.#fence;
      this.#watch("wait", () => {
        const encoder = this.device.createCommandEncoder();
        encoder.clearBuffer(fence);
        this.device.queue.submit([encoder.finish()]);
      });
      await mapNow(fence);
      fence.unmap();
    });
  }

  /** Throws the first error the device has reported outside error scopes, if any. */
  check(): void {
    if (this.#lost !== undefined) throw new DeviceLostError(`the device is lost (${this.#lost}), open another`);
    const message = this.#uncaptured;
    this.#uncaptured = undefined;
    if (message !== undefined) throw new Error(`the device reported: ${message}`);
  }

  /**
   * Reads bytes of a buffer after all submitted work.
   *
   * @param sizeBytes a multiple of 4; default: the rest of the buffer
   */
  read(buffer: GPUBuffer, sizeBytes = buffer.size, offsetBytes = 0): Promise<ArrayBuffer> {
    return this.#afterOthers(async () => {
      const staging = await this.#stagingOf(sizeBytes);
      this.#watch(`read of ${buffer.label}`, () => {
        const encoder = this.device.createCommandEncoder();
        encoder.copyBufferToBuffer(buffer, offsetBytes, staging, 0, sizeBytes);
        this.device.queue.submit([encoder.finish()]);
      });
      await mapNow(staging);
      const bytes = staging.getMappedRange(0, sizeBytes).slice(0);
      staging.unmap();
      if (staging.size > KEPT_STAGING_BYTES) this.destroyBuffer(staging);
      return bytes;
    });
  }

  /** A buffer to read through; small ones are kept, one of each power of two. */
  async #stagingOf(sizeBytes: number): Promise<GPUBuffer> {
    if (sizeBytes > KEPT_STAGING_BYTES) return await this.#primedStaging(sizeBytes);
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(sizeBytes, 256)));
    let staging = this.#staging.get(capacity);
    if (!staging) this.#staging.set(capacity, staging = await this.#primedStaging(capacity));
    return staging;
  }

  /** Runs one read or wait at a time; an error of what was submitted before comes first. */
  #afterOthers<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#reading.then(async () => {
      let value: T;
      try {
        value = await run();
      } catch (cause) {
        await this.#throwReported();
        throw cause;
      }
      await this.#throwSubmitted();
      return value;
    });
    this.#reading = result.catch(() => {});
    return result;
  }

  async #throwSubmitted(): Promise<void> {
    const submitted = this.#submitted;
    this.#submitted = Promise.resolve(undefined);
    const error = await submitted;
    if (error) throw error;
    this.check();
  }

  /** A lost device is reported a turn or two of the event loop after what it broke. */
  async #throwReported(): Promise<void> {
    for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setTimeout(resolve));
    this.check();
    await this.#throwSubmitted();
  }

  /** Runs something in an error scope whose error the next read or wait throws. */
  #watch<T>(what: string, run: () => T): T {
    this.device.pushErrorScope("validation");
    const value = run();
    const own = this.device.popErrorScope().catch(() => null); // of a lost device, which check reports
    const before = this.#submitted;
    this.#submitted = Promise.all([before, own]).then(([first, error]) =>
      first ?? (error ? new Error(`${what} is invalid: ${error.message}`) : undefined)
    );
    return value;
  }

  /** Reads a buffer of f32. */
  async readF32(buffer: GPUBuffer, length = buffer.size / 4): Promise<Float32Array<ArrayBuffer>> {
    return new Float32Array(await this.read(buffer, length * 4));
  }

  /** Frees the device and all its buffers. */
  close(): void {
    this.device.destroy();
  }

  /** As {@linkcode Gpu.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** A buffer that Deno's unawaited map needs mapped once before: unprimed it aborts the process. */
  async #primedStaging(sizeBytes: number): Promise<GPUBuffer> {
    const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
    const buffer = await this.createBuffer("staging", sizeBytes, usage);
    await buffer.mapAsync(GPUMapMode.READ);
    buffer.getMappedRange();
    buffer.unmap();
    return buffer;
  }

  /** Runs `make` in error scopes; out of memory is read first, since it shows up as a validation error later. */
  async #scoped<T>(what: string, make: () => T, neededBytes: number): Promise<T> {
    this.device.pushErrorScope("validation");
    this.device.pushErrorScope("out-of-memory");
    const made = make();
    // Both at once: a scope of another caller must not come between.
    const [outOfMemory, invalid] = await Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]);
    if (outOfMemory) {
      const held = this.#heldBytes;
      const message = `${what} needs ${neededBytes} bytes, the device has no room beyond the ${held} bytes held`;
      throw new OutOfMemoryError(message, neededBytes, held);
    }
    if (invalid) throw new Error(`${what} is invalid: ${invalid.message}`);
    this.check();
    return made;
  }
}

/** The shader as browsers want it: with an `enable` line where it uses subgroups. naga, Deno's compiler, rejects that. */
export function withEnableLines(code: string): string {
  return /\bsubgroup[A-Z]\w*\(/.test(code) ? `enable subgroups;\n${code}` : code;
}

function fixedSubgroupSize({ subgroupMinSize, subgroupMaxSize }: GPUAdapterInfo): number {
  const isPowerOfTwo = (subgroupMinSize & (subgroupMinSize - 1)) === 0;
  return subgroupMinSize === subgroupMaxSize && isPowerOfTwo && subgroupMinSize >= 4 ? subgroupMinSize : 0;
}

/** Workgroups of one dimension never exceed this in WebGPU's default limits. */
const MAX_WORKGROUPS = 65535;

/** Spreads workgroups over x and y; a kernel takes `y * num_workgroups.x + x` and ignores those past its end. */
export function spreadWorkgroups(count: number): [x: number, y: number, z: number] {
  const y = Math.ceil(count / MAX_WORKGROUPS);
  return [Math.ceil(count / y), y, 1];
}

/** Encodes dispatches into an open pass. */
export function encodeDispatches(pass: GPUComputePassEncoder, dispatches: readonly Dispatch[]): void {
  for (const { kernel, bindings, workgroups } of dispatches) {
    pass.setPipeline(kernel.pipeline);
    pass.setBindGroup(0, bindings);
    pass.dispatchWorkgroups(...workgroups);
  }
}

/**
 * Maps a primed staging buffer as soon as the GPU is done.
 *
 * Deno's `mapAsync` blocks until the work is done, yet its promise resolves a fixed 10 ms later; so there the promise
 * is not awaited. Browsers take the ordinary way.
 */
async function mapNow(staging: GPUBuffer): Promise<void> {
  const mapped = staging.mapAsync(GPUMapMode.READ);
  if (IS_DENO) mapped.catch(() => {});
  else await mapped;
}

/** `writeBuffer` wants whole words; only the last chunk of an odd-sized plane is copied. */
function wholeWords(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}
