// What quantizing a matrix may know of its input.
import { checkMatrix } from "./check.ts";
import { checkFeedback, type Feedback } from "./error_feedback.ts";

/** What is known of a matrix's input; without it every error counts the same and there is no feedback. */
export interface InputKnowledge {
  /** Error feedback, prepared from the Hessian of the input. */
  readonly feedback: Feedback;
  /** f32 [rows to quantize, channels]: see target.ts; absent where the input is that of the unquantized model. */
  readonly correlation?: Float32Array;
}

/** Checks that knowledge of an input fits the rows that are quantized. @throws {TypeError | RangeError} */
export function checkInput({ feedback, correlation }: Partial<InputKnowledge>, rows: number, channels: number): void {
  if (feedback) checkFeedback(feedback, channels);
  if (!correlation) return;
  if (!feedback) throw new TypeError("a correlation is given without feedback, must be with it");
  checkMatrix(correlation, rows, channels);
}
