// Measuring what fits on the device, and going on where something doesn't.
import { OutOfMemoryError } from "../kernels/gpu/device_errors.ts";

/** What a row says that the device had no room for. */
export const DOES_NOT_FIT = "does not fit on this device";

/** What `make` makes; undefined where the device has no room. Other errors go on. */
export async function unlessOutOfMemory<T>(make: () => Promise<T>): Promise<T | undefined> {
  try {
    return await make();
  } catch (error) {
    if (!(error instanceof OutOfMemoryError)) throw error;
    return undefined;
  }
}
