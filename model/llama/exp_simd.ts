// Exponentials on the CPU with 128-bit SIMD: by exp.wat, a third of the time of Math.exp.
import { compileWat, growMemory } from "./compile_wat.ts";
import source from "./exp.wat" with { type: "text" };
import type { Exponentials } from "./matmul.ts";

interface ExpModule {
  readonly exps: (from: number, to: number, count: number, shift: number, scale: number) => void;
}

/** Powers of Taylor's series: the next is below 2^-53 of the sum for arguments of half a ln 2. */
const POWERS = 13;

/** Compiles exp.wat and returns exponentials that use it. They own 12 bytes for each value of the longest array. */
export async function createExpSimd(): Promise<Exponentials> {
  const { memory, exps } = await compileWat<ExpModule>("exp.wat", source.replace(/\bSERIES$/m, seriesText()));
  return (values, shift, scale) => {
    const to = 8 * Math.ceil(values.length / 2);
    const buffer = growMemory(memory, to + 16 * Math.ceil(values.length / 2));
    new Float32Array(buffer).set(values);
    if (values.length > 0) exps(0, to, values.length, shift, scale);
    return new Float64Array(buffer, to, values.length);
  };
}

/** 1 + r (1 + r (1/2 + r (1/6 + ...))). */
function seriesText(): string {
  let factorial = 1;
  let [open, close] = ["", ""];
  for (let power = 0; power < POWERS; power++) {
    factorial *= Math.max(1, power);
    open += "(f64x2.relaxed_madd (local.get $r)\n";
    close = `\n(v128.const f64x2 ${1 / factorial} ${1 / factorial}))${close}`;
  }
  factorial *= POWERS;
  return `${open}(v128.const f64x2 ${1 / factorial} ${1 / factorial})${close}`;
}
