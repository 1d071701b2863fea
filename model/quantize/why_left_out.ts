// What a run that quantizes does without where nobody asked for it.
import { isDeviceFailure } from "../../kernels/gpu/device_errors.ts";

/**
 * Why something that is done by default is left out: the device fails, or values are refused, which RangeErrors say.
 *
 * @throws anything else, which is a fault of the program, of a file or of whom it tells
 */
export function whyLeftOut(error: unknown): string {
  if (error instanceof RangeError || isDeviceFailure(error)) return error.message;
  throw error;
}
