// Matrix products on the CPU with 128-bit SIMD: packs both operands into panels and calls matmul.wat.
// About 40 GFLOP/s a core where plain TypeScript does 1 to 2.
import { compileWat, growMemory } from "./compile_wat.ts";
import { createExpSimd } from "./exp_simd.ts";
import { checkProduct, type MatMul, type MatrixView } from "./matmul.ts";
import source from "./matmul.wat" with { type: "text" };

/** Rows of x and of w in a panel, and depths of a turn of the inner loop; matmul.wat is written for these. */
const X_PANEL = 5;
const W_PANEL = 8;
const STEPS = 4;

/** Largest packed operands; longer ones are multiplied in pieces. The w piece should fit the second-level cache. */
const MAX_X_BYTES = 1 << 24;
const MAX_W_BYTES = 1 << 20;

interface GemmModule {
  readonly gemm: (x: number, w: number, y: number, xPanels: number, wPanels: number, k: number) => void;
}

/** Compiles matmul.wat and returns a product that uses it. The product owns about 40 MB at most. */
export async function createMatmulSimd(): Promise<MatMul> {
  const { memory, gemm } = await compileWat<GemmModule>("matmul.wat", source.replace(/\bSTEPS$/m, stepsText()));
  const matmul = (x: MatrixView, w: MatrixView, y: MatrixView) => {
    checkProduct(x, w, y);
    if (x.rows === 0 || w.rows === 0) return;
    if (x.columns === 0) return fillZero(y);
    const depth = STEPS * Math.ceil(x.columns / STEPS);
    const xPiece = pieceRows(MAX_X_BYTES, depth, X_PANEL);
    const wPiece = pieceRows(MAX_W_BYTES, depth, W_PANEL);
    for (let t = 0; t < x.rows; t += xPiece) {
      const xPart = rowsOf(x, t, Math.min(xPiece, x.rows - t));
      const wMost = Math.min(wPiece, w.rows);
      packPanels(xPart, depth, roomFor(memory, xPart.rows, wMost, depth), 0, X_PANEL);
      for (let n = 0; n < w.rows; n += wPiece) {
        const wPart = rowsOf(w, n, Math.min(wPiece, w.rows - n));
        multiplyPiece(memory, gemm, depth, xPart, wPart, y, t, n);
      }
    }
  };
  return Object.assign(matmul, { exponentials: await createExpSimd() });
}

/**
 * A turn of matmul.wat's inner loop: at each depth 8 elements of w by 5 of x. The latter are loaded four at a time and
 * spread by shuffles, since each load is checked against the bounds of the memory, which takes as long as a product.
 */
function stepsText(): string {
  const lines: string[] = [];
  for (let i = 0; i < STEPS * X_PANEL; i++) {
    const [row, lane] = [i % X_PANEL, i % 4];
    const at = 4 * W_PANEL * Math.floor(i / X_PANEL);
    if (row === 0) {
      lines.push(`(local.set $b0 (v128.load offset=${at} (local.get $wAt)))`);
      lines.push(`(local.set $b1 (v128.load offset=${at + 16} (local.get $wAt)))`);
    }
    if (lane === 0) lines.push(`(local.set $x4 (v128.load offset=${4 * i} (local.get $xAt)))`);
    const bytes = Array.from({ length: 16 }, (_, byte) => 4 * lane + byte % 4).join(" ");
    lines.push(`(local.set $a (i8x16.shuffle ${bytes} (local.get $x4) (local.get $x4)))`);
    for (const half of [0, 1]) {
      const sum = `$c${row}${half}`;
      lines.push(`(local.set ${sum} (f32x4.relaxed_madd (local.get $a) (local.get $b${half}) (local.get ${sum})))`);
    }
  }
  return lines.join("\n");
}

/** Multiplies a piece whose rows of x are packed. */
function multiplyPiece(
  memory: WebAssembly.Memory,
  gemm: GemmModule["gemm"],
  depth: number,
  x: MatrixView,
  w: MatrixView,
  y: MatrixView,
  t0: number,
  n0: number,
): void {
  const xPanels = Math.ceil(x.rows / X_PANEL);
  const wPanels = Math.ceil(w.rows / W_PANEL);
  const wAt = xPanels * X_PANEL * depth;
  const yAt = wAt + wPanels * W_PANEL * depth;
  const yStride = wPanels * W_PANEL;
  const floats = roomFor(memory, x.rows, w.rows, depth);
  packPanels(w, depth, floats, wAt, W_PANEL);
  gemm(0, wAt * 4, yAt * 4, xPanels, wPanels, depth);
  for (let t = 0; t < x.rows; t++) {
    let at = y.offset + (t0 + t) * y.rowStride + n0 * y.columnStride;
    const from = yAt + t * yStride;
    if (y.columnStride === 1) y.data.set(floats.subarray(from, from + w.rows), at);
    else for (let n = 0; n < w.rows; n++, at += y.columnStride) y.data[at] = floats[from + n];
  }
}

/**
 * Copies rows into depth-major panels, with zeros up to a depth that is longer. Rows that the last panel lacks repeat its
 * last one, as nobody reads their products. The rows of a panel go side by side: one after the other takes three times as
 * long.
 */
function packPanels(view: MatrixView, depth: number, floats: Float32Array, offset: number, panel: number): void {
  const { data, rows, columns, rowStride, columnStride } = view;
  for (let first = 0; first < rows; first += panel) {
    const last = Math.min(panel, rows - first) - 1;
    const distance = (row: number) => Math.min(row, last) * rowStride;
    const [d1, d2, d3, d4] = [distance(1), distance(2), distance(3), distance(4)];
    const [d5, d6, d7] = [distance(5), distance(6), distance(7)];
    let from = view.offset + first * rowStride;
    let to = offset + first * depth;
    for (let k = 0; k < columns; k++, from += columnStride, to += panel) {
      floats[to] = data[from];
      floats[to + 1] = data[from + d1];
      floats[to + 2] = data[from + d2];
      floats[to + 3] = data[from + d3];
      floats[to + 4] = data[from + d4];
      if (panel === X_PANEL) continue;
      floats[to + 5] = data[from + d5];
      floats[to + 6] = data[from + d6];
      floats[to + 7] = data[from + d7];
    }
    floats.fill(0, to, to + (depth - columns) * panel);
  }
}

/** The memory, grown to hold pieces of so many rows of x and w and their product. */
function roomFor(memory: WebAssembly.Memory, xRows: number, wRows: number, depth: number): Float32Array {
  const [x, w] = [X_PANEL * Math.ceil(xRows / X_PANEL), W_PANEL * Math.ceil(wRows / W_PANEL)];
  return new Float32Array(growMemory(memory, 4 * (x * depth + w * depth + x * w)));
}

function pieceRows(maxBytes: number, depth: number, panel: number): number {
  return Math.max(panel, Math.floor(maxBytes / (depth * 4 * panel)) * panel);
}

function rowsOf(view: MatrixView, first: number, rows: number): MatrixView {
  return { ...view, offset: view.offset + first * view.rowStride, rows };
}

function fillZero(y: MatrixView): void {
  for (let r = 0; r < y.rows; r++) {
    for (let c = 0; c < y.columns; c++) y.data[y.offset + r * y.rowStride + c * y.columnStride] = 0;
  }
}
