/**
 * The most memory of the host that this process held.
 *
 * @module
 */

/** In bytes, as the kernel counts them; undefined where there is no Linux to ask. */
export function hostPeakBytes(): number | undefined {
  if (Deno.build.os !== "linux") return undefined;
  const [, kibibytes] = /^VmHWM:\s+(\d+) kB$/m.exec(Deno.readTextFileSync("/proc/self/status")) ?? [];
  return kibibytes === undefined ? undefined : 1024 * Number(kibibytes);
}
