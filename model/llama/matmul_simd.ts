// Matrix products on the CPU with 128-bit SIMD: packs both operands into panels and calls matmul.wat.
// About 40 GFLOP/s a core where plain TypeScript does 1 to 2.
import loadWabt from "wabt";
import { checkProduct, type MatMul, type MatrixView } from "./matmul.ts";
import source from "./matmul.wat" with { type: "text" };

/** Rows of x and of w in a panel; matmul.wat is written for these. */
const X_PANEL = 6;
const W_PANEL = 8;

/** Largest packed operands; longer ones are multiplied in pieces. The w piece should fit the second-level cache. */
const MAX_X_BYTES = 1 << 24;
const MAX_W_BYTES = 1 << 20;

type Gemm = (x: number, w: number, y: number, xPanels: number, wPanels: number, k: number) => void;

/** Compiles matmul.wat and returns a product that uses it. The product owns about 40 MB at most. */
export async function createMatmulSimd(): Promise<MatMul> {
  const wabt = await loadWabt();
  const { buffer } = wabt.parseWat("matmul.wat", source, { simd: true, relaxed_simd: true }).toBinary({});
  const { instance } = await WebAssembly.instantiate(new Uint8Array(buffer));
  const memory = instance.exports.memory as WebAssembly.Memory;
  const gemm = instance.exports.gemm as Gemm;
  return (x, w, y) => {
    checkProduct(x, w, y);
    if (x.rows === 0 || w.rows === 0) return;
    if (x.columns === 0) return fillZero(y);
    const xPiece = pieceRows(MAX_X_BYTES, x.columns, X_PANEL);
    const wPiece = pieceRows(MAX_W_BYTES, x.columns, W_PANEL);
    for (let t = 0; t < x.rows; t += xPiece) {
      const xPart = rowsOf(x, t, Math.min(xPiece, x.rows - t));
      const wMost = Math.min(wPiece, w.rows);
      packPanels(xPart, roomFor(memory, xPart.rows, wMost, x.columns), 0, X_PANEL);
      for (let n = 0; n < w.rows; n += wPiece) {
        const wPart = rowsOf(w, n, Math.min(wPiece, w.rows - n));
        multiplyPiece(memory, gemm, xPart, wPart, y, t, n);
      }
    }
  };
}

/** Multiplies a piece whose rows of x are packed. */
function multiplyPiece(
  memory: WebAssembly.Memory,
  gemm: Gemm,
  x: MatrixView,
  w: MatrixView,
  y: MatrixView,
  t0: number,
  n0: number,
): void {
  const depth = x.columns;
  const xPanels = Math.ceil(x.rows / X_PANEL);
  const wPanels = Math.ceil(w.rows / W_PANEL);
  const wAt = xPanels * X_PANEL * depth;
  const yAt = wAt + wPanels * W_PANEL * depth;
  const yStride = wPanels * W_PANEL;
  const floats = roomFor(memory, x.rows, w.rows, depth);
  packPanels(w, floats, wAt, W_PANEL);
  gemm(0, wAt * 4, yAt * 4, xPanels, wPanels, depth);
  for (let t = 0; t < x.rows; t++) {
    let at = y.offset + (t0 + t) * y.rowStride + n0 * y.columnStride;
    const from = yAt + t * yStride;
    for (let n = 0; n < w.rows; n++, at += y.columnStride) y.data[at] = floats[from + n];
  }
}

/**
 * Copies rows into depth-major panels; the missing rows of the last panel become zeros. The loops run along the
 * view's memory: through the depth of one row, or, for a transposed view, through the rows of one depth.
 */
function packPanels(view: MatrixView, floats: Float32Array, offset: number, panel: number): void {
  const { data, rows, columns, rowStride, columnStride } = view;
  for (let first = 0; first < rows; first += panel) {
    const to = offset + first * columns;
    const from = view.offset + first * rowStride;
    const count = Math.min(panel, rows - first);
    if (count < panel) floats.fill(0, to, to + panel * columns);
    if (rowStride === 1) {
      for (let k = 0; k < columns; k++) {
        for (let r = 0; r < count; r++) floats[to + k * panel + r] = data[from + k * columnStride + r];
      }
    } else {
      for (let r = 0; r < count; r++) {
        const row = from + r * rowStride;
        for (let k = 0; k < columns; k++) floats[to + k * panel + r] = data[row + k * columnStride];
      }
    }
  }
}

/** The memory, grown to hold pieces of so many rows of x and w and their product. */
function roomFor(memory: WebAssembly.Memory, xRows: number, wRows: number, depth: number): Float32Array {
  const [x, w] = [X_PANEL * Math.ceil(xRows / X_PANEL), W_PANEL * Math.ceil(wRows / W_PANEL)];
  const missingBytes = 4 * (x * depth + w * depth + x * w) - memory.buffer.byteLength;
  if (missingBytes > 0) memory.grow(Math.ceil(missingBytes / 65536));
  return new Float32Array(memory.buffer);
}

function pieceRows(maxBytes: number, columns: number, panel: number): number {
  return Math.max(panel, Math.floor(maxBytes / (columns * 4 * panel)) * panel);
}

function rowsOf(view: MatrixView, first: number, rows: number): MatrixView {
  return { ...view, offset: view.offset + first * view.rowStride, rows };
}

function fillZero(y: MatrixView): void {
  for (let r = 0; r < y.rows; r++) {
    for (let c = 0; c < y.columns; c++) y.data[y.offset + r * y.rowStride + c * y.columnStride] = 0;
  }
}
