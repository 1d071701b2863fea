// The device as kernels see it: buffers, pipelines, submission, reading back.
import { adapterName } from "./adapter.ts";
import type { Capabilities } from "./capabilities.ts";
import { DeviceErrors, DeviceLostError, OutOfMemoryError } from "./device_errors.ts";
import { type DeviceProfile, profileOf } from "./device_profile.ts";
import { inDialect } from "./dialect.ts";
import { ReadBack } from "./read_back.ts";
import { requestDevice, type RequestedDevice } from "./request_device.ts";
import { bindingEntries, type Shader } from "./shader.ts";
import { writeChunks } from "./write_chunks.ts";

/** What {@linkcode openGpu} accepts. */
export interface GpuOptions {
  /** The WebGPU to ask, such as Dawn's from `openDawn()`. Default: Deno's own, or the browser's. */
  readonly webgpu?: GPU;
  /** Leave out subgroups even where the device has them. Default: false. */
  readonly withoutSubgroups?: boolean;
}

/** Bytes that are written at most before the host waits for the device. */
const MAX_WRITTEN_BYTES = 128 * 2 ** 20;

/** Bytes of a buffer where room is asked for: drivers refuse far larger ones though there is memory. */
const ROOM_BYTES = 2 ** 28;

/** A compiled compute kernel. */
export interface Kernel extends Pick<Shader, "label" | "bindings"> {
  /** The compiled shader. */
  readonly pipeline: GPUComputePipeline;
  /** Of its bindings, group 0. */
  readonly layout: GPUBindGroupLayout;
}

/** Buffers of a kernel, or ranges of them, by the names that its shader gives them. */
export type NamedBuffers = Readonly<Record<string, GPUBuffer | GPUBufferBinding>>;

/** Values of a shader's `override` constants. */
export type Constants = Readonly<Record<string, number>>;

/** One dispatch: a kernel, its bindings and its number of workgroups. */
export interface Dispatch {
  /** What runs. */
  readonly kernel: Kernel;
  /** Its buffers, group 0. */
  readonly bindings: GPUBindGroup;
  /** How often, in three dimensions. */
  readonly workgroups: readonly [x: number, y: number, z: number];
}

/** What makes a dispatch of a shader. */
export interface DispatchParts extends Pick<Dispatch, "workgroups"> {
  /** Default: none. */
  readonly constants?: Constants;
  /** All that the shader binds. */
  readonly buffers: NamedBuffers;
}

/** Opens the first adapter. @throws {Error} when there is no adapter, with the packages that bring a software one */
export async function openGpu(options: GpuOptions = {}): Promise<Gpu> {
  return new Gpu(await requestDevice(options.webgpu ?? navigator.gpu, options.withoutSubgroups ?? false));
}

/** A WebGPU device with the few operations that kernels need; every GPU error becomes an exception. */
export class Gpu implements Disposable {
  /** The device itself, for what this class leaves out. */
  readonly device: GPUDevice;
  /** As the driver names it, such as `NVIDIA H200` or `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  readonly adapterName: string;
  /** What its implementation of WebGPU can do. */
  readonly capabilities: Capabilities;
  /** Features that were granted: shader-f16, timestamp-query, subgroups and what multiplies by them. */
  readonly features: ReadonlySet<string>;
  /** By what work is spread over it. */
  readonly profile: DeviceProfile;
  /** Whether workgroups waited for each other in vain: set by who finds that out, none are made to wait again. */
  hasWaitedInVain = false;
  readonly #errors: DeviceErrors;
  readonly #readBack: ReadBack;
  /** By shader, then by constants. */
  readonly #kernels = new Map<Shader, Map<string, Promise<Kernel>>>();
  readonly #live = new Set<GPUBuffer>();
  #heldBytes = 0;
  #writtenBytes = 0;
  /** Ends when the device has taken what was written before that. */
  #taken: Promise<void> = Promise.resolve();
  #peakBytes = 0;

  /** Use {@linkcode openGpu}. */
  constructor(requested: RequestedDevice) {
    const { adapter, device, features, capabilities } = requested;
    this.device = device;
    this.features = features;
    this.capabilities = capabilities;
    this.adapterName = adapterName(adapter.info);
    this.profile = profileOf(adapter, device, features, capabilities);
    this.#errors = new DeviceErrors(device);
    this.#readBack = new ReadBack(this, this.#errors);
  }

  /** True for an adapter that runs on the CPU, whose timings say nothing about GPUs. */
  get isSoftware(): boolean {
    return this.profile.software;
  }

  /** Bytes held in buffers made by this object, without small ones that are kept to read through. */
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
    const buffer = await this.#errors.made(`buffer ${label}`, make, sizeBytes, this.#heldBytes);
    this.#live.add(buffer);
    this.#heldBytes += sizeBytes;
    this.#peakBytes = Math.max(this.#peakBytes, this.#heldBytes);
    return buffer;
  }

  /**
   * Asks for memory that will be needed and gives it back, so that a lack of it shows before the work.
   *
   * @throws {OutOfMemoryError} when the device has no room
   */
  async checkRoom(what: string, sizeBytes: number): Promise<void> {
    const asked: GPUBuffer[] = [];
    try {
      for (let left = Math.ceil(sizeBytes / 4) * 4; left > 0; left -= ROOM_BYTES) {
        const size = Math.min(left, ROOM_BYTES);
        const make = () => this.device.createBuffer({ label: what, size, usage: GPUBufferUsage.STORAGE });
        asked.push(await this.#errors.made(what, make, sizeBytes, this.#heldBytes));
      }
    } finally {
      for (const buffer of asked) buffer.destroy();
      await this.wait();
    }
  }

  /** Makes a storage buffer that can be copied from and to. */
  createStorage(label: string, sizeBytes: number): Promise<GPUBuffer> {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
    return this.createBuffer(label, sizeBytes, usage);
  }

  /** Makes a storage buffer with this content, padded with zeros to a multiple of `alignBytes`. */
  async uploadStorage(label: string, data: ArrayBufferView<ArrayBuffer>, alignBytes = 16): Promise<GPUBuffer> {
    const sizeBytes = Math.max(1, Math.ceil(data.byteLength / alignBytes)) * alignBytes;
    await this.waitForWrites();
    const buffer = await this.createStorage(label, sizeBytes);
    this.write(buffer, data);
    return buffer;
  }

  /** Writes to a buffer in chunks, submitting each, so that its staging memory can be freed. */
  write(buffer: GPUBuffer, data: ArrayBufferView<ArrayBuffer>, offsetBytes = 0): void {
    this.#writtenBytes += data.byteLength;
    writeChunks(this.device, this.capabilities.implementation, buffer, data, offsetBytes);
  }

  /**
   * Waits for the device where much was written that it may not have taken: only then is the memory free in which the
   * writes lie on the host. It has the later half left to do, but where waiting holds the thread until all is done.
   * {@linkcode uploadStorage} does so by itself.
   */
  async waitForWrites(): Promise<void> {
    const mostBytes = this.capabilities.blockingMaps ? MAX_WRITTEN_BYTES : MAX_WRITTEN_BYTES / 2;
    if (this.#writtenBytes <= mostBytes) return;
    const before = this.#taken;
    this.#taken = this.wait();
    this.#taken.catch(() => {}); // whoever waits meets the error
    await (this.capabilities.blockingMaps ? this.#taken : before);
  }

  /** Copies bytes from one buffer to another; offsets and size are multiples of 4. */
  copy(from: GPUBuffer, fromOffset: number, to: GPUBuffer, toOffset: number, sizeBytes: number): void {
    this.#errors.submit(
      `copy of ${from.label}`,
      (encoder) => encoder.copyBufferToBuffer(from, fromOffset, to, toOffset, sizeBytes),
    );
  }

  /** Fills a buffer with zeros. */
  clear(buffer: GPUBuffer): void {
    this.#errors.submit(`clearing of ${buffer.label}`, (encoder) => encoder.clearBuffer(buffer));
  }

  /** Makes a storage buffer with the same content. */
  async duplicate(buffer: GPUBuffer): Promise<GPUBuffer> {
    const copy = await this.createStorage(buffer.label, buffer.size);
    this.copy(buffer, 0, copy, 0, buffer.size);
    return copy;
  }

  /** Frees a buffer made by {@linkcode createBuffer}; one that is freed already stays so. */
  destroyBuffer(buffer: GPUBuffer): void {
    if (!this.#live.delete(buffer)) {
      throw new Error(`buffer ${buffer.label} is not live, must be freed once by its owner`);
    }
    this.#heldBytes -= buffer.size;
    buffer.destroy();
  }

  /**
   * Compiles a shader, once for the same constants.
   *
   * @throws {SyntaxError} when the shader doesn't compile, with the compiler's message
   */
  createKernel(shader: Shader, constants: Constants = {}): Promise<Kernel> {
    const ofShader = this.#kernels.get(shader) ?? new Map<string, Promise<Kernel>>();
    this.#kernels.set(shader, ofShader);
    const key = JSON.stringify(constants);
    let kernel = ofShader.get(key);
    if (!kernel) ofShader.set(key, kernel = this.#compile(shader, constants));
    return kernel;
  }

  async #compile({ label, code, bindings }: Shader, constants: Constants): Promise<Kernel> {
    const make = () => {
      const module = this.device.createShaderModule({ label, code: inDialect(code, this.capabilities) });
      const compute = { module, entryPoint: "main", constants: { ...constants } };
      return this.device.createComputePipeline({ label, layout: "auto", compute });
    };
    try {
      const pipeline = await this.#errors.made(`kernel ${label}`, make, 0, this.#heldBytes);
      return { label, bindings, pipeline, layout: pipeline.getBindGroupLayout(0) };
    } catch (cause) {
      if (cause instanceof DeviceLostError || cause instanceof OutOfMemoryError) throw cause;
      throw new SyntaxError((cause as Error).message, { cause });
    }
  }

  /**
   * Binds buffers, or ranges of them, to a kernel.
   *
   * @throws {TypeError} for a name that the kernel doesn't bind, or one that is missing
   */
  bind(kernel: Kernel, buffers: NamedBuffers): GPUBindGroup {
    const { label, layout } = kernel;
    const entries = bindingEntries(kernel, buffers);
    const make = () => this.device.createBindGroup({ label, layout, entries });
    return this.#errors.watch(`bindings of ${label}`, make);
  }

  /** Makes a dispatch as {@linkcode createKernel} and {@linkcode bind} do. */
  async makeDispatch(shader: Shader, { constants, buffers, workgroups }: DispatchParts): Promise<Dispatch> {
    const kernel = await this.createKernel(shader, constants);
    return { kernel, bindings: this.bind(kernel, buffers), workgroups };
  }

  /** Submits dispatches in one pass, in order; each sees what those before it wrote. */
  submit(dispatches: readonly Dispatch[]): void {
    this.#errors.submit("work submitted", (encoder) => {
      const pass = encoder.beginComputePass();
      encodeDispatches(pass, dispatches);
      pass.end();
    });
  }

  /**
   * Waits until all submitted work is done.
   *
   * @throws {DeviceLostError}
   * @throws {Error} with the first GPU error since the last read or wait
   */
  wait(): Promise<void> {
    this.#writtenBytes = 0;
    return this.#readBack.wait();
  }

  /**
   * Reads bytes of a buffer after all submitted work.
   *
   * @param sizeBytes a multiple of 4; default: the rest of the buffer
   */
  async read(buffer: GPUBuffer, sizeBytes = buffer.size, offsetBytes = 0): Promise<ArrayBuffer> {
    const [bytes] = await this.readParts([{ buffer, offset: offsetBytes, size: sizeBytes }]);
    return bytes;
  }

  /** Reads parts of buffers at once, as {@linkcode Gpu.read}. */
  readParts(parts: readonly Required<GPUBufferBinding>[]): Promise<ArrayBuffer[]> {
    this.#writtenBytes = 0;
    return this.#readBack.read(parts);
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
