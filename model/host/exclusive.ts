// One call at a time.

/** Runs work that must not meet other work. */
export interface Exclusive {
  /** Runs one call. @throws {Error} while another runs, or after {@linkcode Exclusive.close} */
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Whether it refuses all calls. */
  readonly isClosed: boolean;
  /** Refuses all calls from now on. */
  close(): void;
}

/** Makes one. @param what runs, named in errors */
export function createExclusive(what: string): Exclusive {
  let isBusy = false;
  let isClosed = false;
  return {
    async run(work) {
      if (isClosed) throw new Error(`${what} is disposed, must be another`);
      if (isBusy) throw new Error(`${what} is at work, must be awaited before it is called again`);
      isBusy = true;
      try {
        return await work();
      } finally {
        isBusy = false;
      }
    },
    get isClosed() {
      return isClosed;
    },
    close() {
      isClosed = true;
    },
  };
}
