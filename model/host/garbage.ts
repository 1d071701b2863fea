// Collecting garbage before V8 does.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of arrays that may gather in a thread; V8 would let it be 64 MB, in each of many workers. */
const GATHERED_BYTES = 8 * 2 ** 20;

/** Makes V8's function that collects garbage, all of it or what is young. */
export function openCollector(): (how?: { readonly type: "minor" }) => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}

/** Makes a function that collects young garbage of this thread where many bytes of arrays came since it last did. */
export function createCollector(): () => void {
  const collect = openCollector();
  let leftBytes = 0;
  return () => {
    if (Deno.memoryUsage().external < leftBytes + GATHERED_BYTES) return;
    collect({ type: "minor" });
    leftBytes = Deno.memoryUsage().external;
  };
}
