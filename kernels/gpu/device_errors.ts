// Errors of a device: WebGPU reports them in scopes and events, callers get them as exceptions.

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

/** What `make` makes; undefined where the device has no room. Other errors go on. */
export async function unlessOutOfMemory<T>(make: () => Promise<T>): Promise<T | undefined> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    return undefined;
  }
}

/** Thrown for what the device reports outside error scopes. */
class DeviceReportError extends Error {}

/** Whether the device failed, rather than the program that uses it. */
export function isDeviceFailure(error: unknown): error is Error {
  return [DeviceLostError, OutOfMemoryError, DeviceReportError].some((kind) => error instanceof kind);
}

/** Collects what one device reports. */
export class DeviceErrors {
  readonly #device: GPUDevice;
  #lost: string | undefined;
  #uncaptured: string | undefined;
  /** What was watched since the last {@linkcode throwSubmitted}, with its error. */
  #watched: { readonly what: string; readonly error: Promise<GPUError | null> }[] = [];

  /** Listens to a device from now on. */
  constructor(device: GPUDevice) {
    this.#device = device;
    device.lost.then((info) => this.#lost = `${info.reason || "unknown"}: ${info.message}`);
    device.addEventListener("uncapturederror", (event) => {
      event.preventDefault();
      this.#uncaptured ??= (event as GPUUncapturedErrorEvent).error.message;
    });
  }

  /** Throws the first error the device has reported outside error scopes, if any. */
  check(): void {
    if (this.#lost !== undefined) throw new DeviceLostError(`the device is lost (${this.#lost}), open another`);
    const message = this.#uncaptured;
    this.#uncaptured = undefined;
    if (message !== undefined) throw new DeviceReportError(`the device reported: ${message}`);
  }

  /**
   * Makes something in error scopes; out of memory is read first, since it shows up as a validation error later.
   *
   * @param neededBytes what it takes, for the message
   * @param heldBytes what is held in buffers, for the message
   * @throws {OutOfMemoryError}
   * @throws {DeviceLostError}
   */
  async made<T>(what: string, make: () => T, neededBytes: number, heldBytes: number): Promise<T> {
    this.#device.pushErrorScope("validation");
    this.#device.pushErrorScope("out-of-memory");
    const made = make();
    // Both at once: a scope of another caller must not come between.
    const [outOfMemory, invalid] = await Promise.all([this.#device.popErrorScope(), this.#device.popErrorScope()]);
    if (outOfMemory) {
      const message = `${what} needs ${neededBytes} bytes, the device has no room beyond the ${heldBytes} bytes held`;
      throw new OutOfMemoryError(message, neededBytes, heldBytes);
    }
    if (invalid) throw new Error(`${what} is invalid: ${invalid.message}`);
    this.check();
    return made;
  }

  /** Runs something in an error scope whose error {@linkcode throwSubmitted} throws. */
  watch<T>(what: string, run: () => T): T {
    this.#device.pushErrorScope("validation");
    const value = run();
    const error = this.#device.popErrorScope().catch(() => null); // of a lost device, which check reports
    this.#watched.push({ what, error });
    return value;
  }

  /** Records commands and submits them, in an error scope as {@linkcode watch}'s. */
  submit(what: string, record: (encoder: GPUCommandEncoder) => void): void {
    this.watch(what, () => {
      const encoder = this.#device.createCommandEncoder();
      record(encoder);
      this.#device.queue.submit([encoder.finish()]);
    });
  }

  /** Throws the first error of what was watched since the last call, or what {@linkcode check} throws. */
  async throwSubmitted(): Promise<void> {
    const watched = this.#watched;
    this.#watched = [];
    for (const { what, error } of watched) {
      const found = await error;
      if (found) throw new Error(`${what} is invalid: ${found.message}`);
    }
    this.check();
  }

  /** As {@linkcode throwSubmitted}, when something has failed: a lost device is reported a turn or two after that. */
  async throwReported(): Promise<void> {
    for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setTimeout(resolve));
    this.check();
    await this.throwSubmitted();
  }
}
