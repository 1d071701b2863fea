// Numbers of the paper that both tables and plots name.

/** Points of accuracy that plain 2-bit quantization loses at least. */
export const PLAIN_LOSS = 3;

/** Speed-up over a kernel without asynchronous dequantization. */
export const ASYNC_SPEEDUP = 3.92;

/** Speed-up of Llama-2 7B over its 16-bit original. */
export const END_TO_END_SPEEDUP = 1.74;

/** How many times runtime cost and hardware cost fall at most. */
export const COST_RATIOS = { runtime: 2.7, hardware: 2.81 };
