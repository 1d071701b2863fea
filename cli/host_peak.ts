// The most memory of the host that this process held.

const STATUS = "/proc/self/status";

/** In bytes, as the kernel counts them; undefined where there is no Linux to ask, or it may not be asked. */
export function hostPeakBytes(): number | undefined {
  let status: string;
  try {
    status = Deno.readTextFileSync(STATUS);
  } catch {
    return undefined; // a number less in a message is no reason to fail
  }
  const [, kibibytes] = /^VmHWM:\s+(\d+) kB$/m.exec(status) ?? [];
  return kibibytes === undefined ? undefined : 1024 * Number(kibibytes);
}
