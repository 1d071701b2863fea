// Telling the person who waits how far long work is.

/** Shows progress on one line of the terminal; where the output is none, only steps are shown. Dispose it to remove it. */
export interface ProgressLine extends Disposable {
  /** Share done, 0..1, and what is being done. */
  update(share: number, step: string): void;
  /** A long step is done, and with it a share of the work, 0..1: where the output is not a terminal, a line says so. */
  step(share: number, step: string): void;
  clear(): void;
}

const INTERVAL_MS = 200;

export interface ProgressOutput {
  isTerminal(): boolean;
  writeSync(bytes: Uint8Array): number;
}

export function createProgressLine(label: string, output: ProgressOutput = Deno.stderr): ProgressLine {
  const visible = output.isTerminal();
  const encoder = new TextEncoder();
  const startMs = performance.now();
  let shownMs = -Infinity;
  let last = { share: 0, ms: startMs };
  const write = (text: string) => {
    if (visible) output.writeSync(encoder.encode(`\r\x1b[2K${text}`));
  };
  const clear = () => {
    if (shownMs !== -Infinity) write("");
    shownMs = -Infinity;
  };
  return {
    update(share, step) {
      const nowMs = performance.now();
      if (nowMs - shownMs < INTERVAL_MS) return;
      shownMs = nowMs;
      const elapsedMs = nowMs - startMs;
      const left = share > 0.02 ? `, ${formatSeconds((elapsedMs * (1 - share)) / share)} left` : "";
      write(`${label}: ${(100 * share).toFixed(0)} % ${step} (${formatSeconds(elapsedMs)}${left})`.slice(0, 150));
    },
    step(share, step) {
      if (visible) return;
      const ms = performance.now();
      // The pace is that of the last step: those before may have been done in an earlier run. A step that was known already
      // has none.
      const leftMs = (ms - last.ms) / (share - last.share) * (1 - share);
      const left = share < 1 && share > last.share ? `, about ${formatSeconds(leftMs)} left` : "";
      last = { share, ms };
      output.writeSync(encoder.encode(`${label}: ${step}, ${formatSeconds(ms - startMs)}${left}\n`));
    },
    clear,
    [Symbol.dispose]: clear,
  };
}

export function formatSeconds(durationMs: number): string {
  const seconds = durationMs / 1000;
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function formatMiB(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

export function formatPercent(share: number): string {
  return `${(100 * share).toFixed(2)} %`;
}
