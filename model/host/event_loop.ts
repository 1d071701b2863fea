// Giving way to signals, timers and requests during long work.

const { setImmediate = (run: () => void) => setTimeout(run) } = globalThis as {
  readonly setImmediate?: (run: () => void) => unknown;
};

/** Lets the event loop turn once: microseconds where there is `setImmediate`. */
export function letOthersRun(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
