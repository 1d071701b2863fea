import { type MatMul, type MatrixView, rowMajor, transpose } from "../../../model/llama/matmul.ts";
import { matmulPlain } from "./matmul_plain.ts";
import { createMatmulSimd } from "../../../model/llama/matmul_simd.ts";
import { createRandom, type Random } from "../../../quant/random.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";

const simd = await createMatmulSimd();

const POISON = 1234.5;

/** A view with random strides on random numbers, its surroundings NaN, so that a read beside the view shows. */
function randomView(rows: number, columns: number, random: Random): MatrixView {
  const inner = 1 + random.integer(3);
  const gap = random.integer(4);
  const transposed = random.uniform() < 0.5;
  const [fast, slow] = transposed ? [rows, columns] : [columns, rows];
  const stride = fast * inner + gap;
  const offset = random.integer(5);
  const data = new Float32Array(offset + slow * stride + random.integer(5)).fill(NaN);
  const [rowStride, columnStride] = transposed ? [inner, stride] : [stride, inner];
  const scale = 10 ** (random.integer(7) - 3);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) data[offset + r * rowStride + c * columnStride] = scale * random.normal();
  }
  return { data, offset, rows, columns, rowStride, columnStride };
}

const at = ({ data, offset, rowStride, columnStride }: MatrixView, r: number, c: number) =>
  data[offset + r * rowStride + c * columnStride];

/** Fails where y isn't x wᵀ within k * 2^-23 * sum |x w| (each of k products and sums rounds once to f32). */
function assertProduct(x: MatrixView, w: MatrixView, y: MatrixView, what: string): void {
  for (let t = 0; t < y.rows; t++) {
    for (let n = 0; n < y.columns; n++) {
      let sum = 0;
      let size = 0;
      for (let k = 0; k < x.columns; k++) {
        const product = at(x, t, k) * at(w, n, k);
        sum += product;
        size += Math.abs(product);
      }
      const difference = Math.abs(at(y, t, n) - sum);
      assert(difference <= Math.max(1, x.columns) * 2 ** -23 * size, `${what}: y[${t}, ${n}] is off by ${difference}`);
    }
  }
}

/** A poisoned output view like those of inputs; returns a check that nothing beside it was written. */
function outputView(rows: number, columns: number, random: Random) {
  const view = randomView(rows, columns, random);
  view.data.fill(POISON);
  const assertUntouched = (what: string) => {
    const own = new Set<number>();
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) own.add(view.offset + r * view.rowStride + c * view.columnStride);
    }
    view.data.forEach((value, i) => assert(own.has(i) || value === POISON, `${what}: wrote beside y at ${i}`));
  };
  return { view, assertUntouched };
}

for (const [name, matmul] of [["plain", matmulPlain], ["simd", simd]] as readonly (readonly [string, MatMul])[]) {
  Deno.test(`matmul ${name}: 300 random shapes, strides and transposes stay within the rounding bound`, () => {
    const random = createRandom(11);
    const length = (max: number) => Math.floor(max ** random.uniform());
    for (let i = 0; i < 300; i++) {
      const [t, n, k] = [length(60), length(60), length(200)];
      const x = randomView(t, k, random);
      const w = randomView(n, k, random);
      const { view: y, assertUntouched } = outputView(t, n, random);
      matmul(x, w, y);
      const what = `case ${i}: [${t}, ${k}] x [${n}, ${k}]`;
      assertProduct(x, w, y, what);
      assertUntouched(what);
    }
  });

  Deno.test(`matmul ${name}: shapes around the panels, and empty ones`, () => {
    const random = createRandom(12);
    for (const t of [0, 1, 5, 6, 7, 12, 13]) {
      for (const n of [0, 1, 7, 8, 9, 16, 17]) {
        for (const k of [0, 1, 2, 3, 4, 5, 33]) {
          const x = randomView(t, k, random);
          const w = randomView(n, k, random);
          const { view: y, assertUntouched } = outputView(t, n, random);
          matmul(x, w, y);
          assertProduct(x, w, y, `[${t}, ${k}] x [${n}, ${k}]`);
          assertUntouched(`[${t}, ${k}] x [${n}, ${k}]`);
        }
      }
    }
  });

  Deno.test(`matmul ${name}: a case worked by hand`, () => {
    const y = new Float32Array(4).fill(POISON);
    const x = rowMajor(Float32Array.of(1, 2, 3, 4, 5, 6), 2, 3);
    const w = rowMajor(Float32Array.of(1, 0, -1, 2, 10, 1), 2, 3);
    matmul(x, w, rowMajor(y, 2, 2));
    assertEquals([...y], [-2, 25, -2, 64]);
    matmul(transpose(x), transpose(w), { ...rowMajor(new Float32Array(9), 3, 3) });
    matmul(x, w, transpose(rowMajor(y, 2, 2)));
    assertEquals([...y], [-2, -2, 25, 64]);
  });

  Deno.test(`matmul ${name}: shapes that don't fit are refused`, () => {
    const view = (rows: number, columns: number) => rowMajor(new Float32Array(rows * columns), rows, columns);
    for (const [x, w, y] of [[view(2, 3), view(4, 2), view(2, 4)], [view(2, 3), view(4, 3), view(4, 2)]]) {
      assertThrows(() => matmul(x, w, y), TypeError, "must be [t, k], [n, k] into [t, n]");
    }
  });
}

Deno.test("matmul simd: w longer than one packed piece (1 MiB)", () => {
  const random = createRandom(13);
  // 1 MiB holds 512 rows of 512 channels; 1,100 rows are three pieces.
  const x = randomView(7, 512, random);
  const w = randomView(1100, 512, random);
  const { view: y, assertUntouched } = outputView(7, 1100, random);
  simd(x, w, y);
  assertProduct(x, w, y, "three pieces of w");
  assertUntouched("three pieces of w");
});

Deno.test("matmul simd: x longer than one packed piece (16 MiB)", () => {
  const random = createRandom(14);
  // 16 MiB hold 8 rows of 2^19 channels, so 6; 13 rows are three pieces, and w goes 8 rows at a time.
  const depth = 1 << 19;
  const fill = (rows: number) => {
    const data = new Float32Array(rows * depth);
    for (let i = 0; i < data.length; i += 1 + random.integer(50)) data[i] = random.uniform() - 0.5;
    return rowMajor(data, rows, depth);
  };
  const [x, w] = [fill(13), fill(9)];
  const y = rowMajor(new Float32Array(13 * 9).fill(POISON), 13, 9);
  simd(x, w, y);
  assertProduct(x, w, y, "three pieces of x");
});

Deno.test("matmul simd: NaN and infinity in the operands reach the output", () => {
  const x = rowMajor(Float32Array.of(1, NaN, 1, Infinity, 1, 1), 3, 2);
  const y = new Float32Array(3);
  simd(x, rowMajor(Float32Array.of(1, 1), 1, 2), rowMajor(y, 3, 1));
  assertEquals([...y], [NaN, Infinity, 2]);
});
